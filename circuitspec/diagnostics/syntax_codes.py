"""CS1xx: what cannot be read, or is not written as a hypothesis file is."""

from __future__ import annotations

from circuitspec.diagnostics.code_info import CodeInfo

SYNTAX: dict[str, CodeInfo] = {
    "CS100": CodeInfo(
        "a file cannot be read",
        "The hypothesis file does not exist, is not a regular file (but a folder, a pipe or a device), or may not be "
        "read. Check the path; it is relative to where the command runs.",
    ),
    "CS101": CodeInfo(
        "a file is not UTF-8",
        "Hypothesis files are UTF-8 text. The place given is that of the first byte that cannot be read so, which "
        "is often an accented letter saved in an older encoding. Let the editor save the file as UTF-8.",
    ),
    "CS102": CodeInfo(
        "a file is too large",
        "A hypothesis file may hold 1 MB. It is meant to be read by people: long word lists belong in .txt or .csv "
        "files (`lists: {names: names.txt}`), prompts in a .jsonl file (`task: {file: prompts.jsonl}`).",
    ),
    "CS103": CodeInfo(
        "a file is empty",
        "The file holds nothing, or comments only. `circuitspec init` writes a commented file to start from.",
    ),
    "CS104": CodeInfo(
        "not valid YAML",
        "The text cannot be read as YAML 1.2, often because of a tab, a missing bracket or quote, or text that "
        'begins with a sign of YAML\'s own. Templates and names with brackets need quotes: `"{IO} went to"`, '
        '`"a[0-5].h*"`, `"@END"`. What follows the place given is not checked until this is mended.',
    ),
    "CS105": CodeInfo(
        "a key is given twice",
        "A mapping has one key twice, and only one of the two values could count. Keep one of them, or give one "
        "another name.",
    ),
    "CS106": CodeInfo(
        "a tag is refused",
        "Tags such as `!!python/object` make some YAML readers run code or build other types. A hypothesis is "
        "plain data and needs none; to keep a number as text, put it in quotes.",
    ),
    "CS107": CodeInfo(
        "an alias is refused",
        "`*name` repeats the value marked `&name` above it. It is refused where nothing is marked so, where a "
        "value would contain itself, and where repetition of repetitions grows beyond 50,000 values. Text that "
        "merely starts with `*` needs quotes.",
    ),
    "CS108": CodeInfo(
        "nested too deeply",
        "Lists and mappings stand more than 60 levels deep inside each other. No hypothesis needs more than a handful.",
    ),
    "CS109": CodeInfo(
        "a key is not text",
        'Keys are text. A number, a list or `true` is none: put it in quotes, as in `"01": {...}`. Merge keys '
        "(`<<`) are not part of YAML 1.2: write the keys out.",
    ),
    "CS110": CodeInfo(
        "an unknown key",
        "This block has no such key, so what stands there would have no effect. It may be misspelt, or indented "
        "into the wrong block.",
    ),
    "CS111": CodeInfo(
        "a key is missing",
        "The block cannot do without this key. `circuitspec schema` prints what every block may and must hold.",
    ),
    "CS112": CodeInfo(
        "a number where a component belongs",
        "Heads are often written 9.6 in papers, but YAML reads 9.10 as the number 9.1, which would silently be "
        "head 1. Write `a9.h10`: `a` for attention, `h` for head, both counted from 0.",
    ),
    "CS113": CodeInfo(
        "a value of the wrong kind",
        "Here stands text where a list belongs, a number where text belongs, or the like. Numbers and true/false "
        'become text in quotes (`"02"`); a single entry becomes a list in brackets (`[a9.h6]`).',
    ),
    "CS114": CodeInfo(
        "not one of the choices",
        "The value must be one of a few words, which the message lists.",
    ),
    "CS115": CodeInfo(
        "a value out of bounds",
        "The value is too small, too large, or empty. Whole numbers beyond 2^53 - 1 are refused everywhere, "
        "because programs that read them disagree about them.",
    ),
    "CS116": CodeInfo(
        "an unknown format version",
        "`circuitspec: 1` says which version of the file format is meant, so that a later version can change it "
        "without misreading old files.",
    ),
    "CS117": CodeInfo(
        "not a component",
        "Components are written `a9.h6` (head), `a9` (all heads of a layer), `m3` (MLP), `m1.n42` (neuron), `r5` "
        "and `r5.mid` (residual stream), `a9.kv2` (key/value head); sets of "
        "them `m*`, `a*.h*`, `a[0-5].h*`. Layers and heads are counted from 0.",
    ),
    "CS118": CodeInfo(
        "a character that YAML does not allow",
        "Control characters other than tabs and line ends cannot stand in YAML. One that the text needs is written "
        'as an escape in double quotes: `"\\x07"`. Escapes for halves of a character (`\\ud800`) stand for '
        "nothing.",
    ),
    "CS119": CodeInfo(
        "more than one document",
        "A line `---` starts a new YAML document. One file holds one hypothesis.",
    ),
    "CS120": CodeInfo(
        "not a claim",
        "A claim is one name with its settings below it: `- sufficient: {metric: logit_diff, at_least: 0.8}`. The "
        "claims are sufficient, necessary, cross_section and path. Each starts with its own dash, and its settings "
        "stand indented below its name.",
    ),
    "CS121": CodeInfo(
        "a claim without a bound",
        "A claim that no result could refute is no claim. Say what is expected: `at_least: 0.8`, `at_most: 0.3`, "
        "or both.",
    ),
    "CS122": CodeInfo(
        "bounds that exclude each other",
        "The lower bound is larger than the upper one, so that no result could support the claim. In a claim `traces` "
        "it is the other way round: `at_least`, what counts as a reaction, must be more than `others_at_most`.",
    ),
    "CS123": CodeInfo(
        "a bound that is not a number",
        "`.nan` and `.inf` are numbers to YAML, but nothing can be compared with the first, and the second bounds "
        "nothing. Leave a bound out to have none.",
    ),
    "CS124": CodeInfo(
        "no claims",
        "`claims` is empty, so there is nothing to verify. Add for instance `- sufficient: {metric: logit_diff, "
        "at_least: 0.8}`.",
    ),
    "CS126": CodeInfo(
        "not one source of prompts",
        "The prompts of a task come from exactly one of `templates` (sentences with slots), `file` (a .jsonl, .csv "
        "or .json file) and `generate` (a generator such as `repeated_tokens`).",
    ),
    "CS127": CodeInfo(
        "a key that does not go with this source of prompts",
        "Slots, lists, answers and corruptions belong to templates. Prompts from a file or a generator bring their "
        "own, so that the key would have no effect.",
    ),
    "CS128": CodeInfo(
        "no answers for a score",
        "The score compares right answers (and for `logit_diff` and `prob_diff` wrong ones too), and the task "
        'gives none. Add `answer: " {IO}"` and `wrong: " {S1}"`, with the space that the answer starts with. Only '
        "`kl` does without.",
    ),
    "CS129": CodeInfo(
        "not a rule for a slot",
        "A slot is filled by `$list`, which draws an entry, or `=SLOT`, which copies another slot. Plain text is "
        "neither; it would be easily taken for a list's name. For a constant, declare a list of one entry.",
    ),
    "CS130": CodeInfo(
        "a template that cannot be read",
        "Slots stand in braces, `{S1}`, columns of a table behind a dot, `{C.city}`. A brace of the text itself is "
        "doubled: `{{`. The text must not be empty, nor hold spaces alone.",
    ),
    "CS131": CodeInfo(
        "a slot that is not declared",
        "A template or answer names a slot that `slots` does not fill. Add it there, or mend the name.",
    ),
    "CS132": CodeInfo(
        "a slot that is not used",
        "The slot stands in no template and no answer, and no slot that does copies it. It may be misspelt in the "
        "template.",
    ),
    "CS133": CodeInfo(
        "a position that some templates lack",
        "The position is that of a slot which does not stand in every template (or not so many times), so that "
        "some prompts would not have it.",
    ),
    "CS134": CodeInfo(
        "an unknown list",
        "`$name` draws from a list that `lists` does not declare.",
    ),
    "CS135": CodeInfo(
        "an unknown slot",
        "A corruption, a copy (`=SLOT`) or a position names a slot that `slots` does not declare.",
    ),
    "CS136": CodeInfo(
        "slots that copy each other",
        "`A: =B` and `B: =A` never come to a value. Let one of the slots draw from a list.",
    ),
    "CS137": CodeInfo(
        "a list that is too short",
        "Slots drawn from one list are distinct, and the fresh values of a corruption differ from the clean ones. "
        "The list has fewer entries than that needs.",
    ),
    "CS139": CodeInfo(
        "a column that does not fit",
        "A slot that draws rows of a table is used with a column, `{C.city}`; one that draws from a plain list "
        "without. A corruption that draws from another table needs the same columns there.",
    ),
    "CS140": CodeInfo(
        "not a position",
        "Positions are a slot (its last token), `S#2` (its second occurrence), either with an offset in tokens "
        "(`S1 + 1`), `last`, `last - 1`, `start`, or a token index such as 3 (-1 is the last token).",
    ),
    "CS141": CodeInfo(
        "an unknown position",
        "A group or node is said to act at a position that is neither a slot nor declared. `S1+1` must be declared "
        "as well: `positions: {S1+1: S1 + 1}`.",
    ),
    "CS142": CodeInfo(
        "a position with the name of a slot",
        "Every slot is a position already: its last token. Another meaning for the same name would be ambiguous.",
    ),
    "CS143": CodeInfo(
        "a position that no template has",
        "No template contains the slot, or not so many times: `S#2` is the second occurrence of `{S}` within one "
        "template.",
    ),
    "CS144": CodeInfo(
        "an unknown corruption",
        "`from`, `answer_of` or `to` names a corruption that `corruptions` does not declare. `clean` stands for the "
        "clean prompts: their mean can be ablated to, their own values change nothing.",
    ),
    "CS145": CodeInfo(
        "an ablation without a source",
        "Resampling and means take values from other prompts. Where these have one corruption, it is taken, and "
        "reports name it; where there are several, say which: `from: abc`. Prompts from a file that has a single "
        "corruption call it `corrupt`.",
    ),
    "CS146": CodeInfo(
        "an ablation with a source that it does not use",
        "Zeros and noise are not taken from other prompts. Remove `from`, or choose resample, mean or "
        "mean_per_template.",
    ),
    "CS147": CodeInfo(
        "noise that is not fully described, or not used",
        "`value: gaussian` adds noise to the token embeddings where `at` says, which it therefore needs: the slots "
        "whose content is to be hidden, as in `{value: gaussian, at: [S1, S2], std: 3, draws: 10, seed: 0}`. The "
        "other ablations add no noise, and `std`, `at`, `draws` and `seed` would have no effect there.",
    ),
    "CS148": CodeInfo(
        "answers by number without a comparison",
        "`{from: $years, above: YY}` takes the entries of a list above a slot's number, `at_most: YY` those up to "
        "it. Without either every entry would be an answer.",
    ),
    "CS149": CodeInfo(
        "a name that cannot be used",
        "Names are letters, digits and `_`, and do not start with a digit (those of corruptions may). Groups may "
        "hold `-`; positions an occurrence and an offset: `S#2`, `S1+1`. `start`, `last` and `clean` have a "
        "meaning of their own.",
    ),
    "CS150": CodeInfo(
        "a list file cannot be read",
        "`lists` names a file that does not exist, is not a regular file (but a folder, a pipe or a device), or may "
        "not be read. File names are relative to the folder of the hypothesis.",
    ),
    "CS151": CodeInfo(
        "a list file is not UTF-8",
        "List files are UTF-8 text. The place given is that of the first byte that cannot be read so.",
    ),
    "CS152": CodeInfo(
        "a list without entries",
        "There is nothing to draw. In a .txt file blank lines and lines that start with `#` do not count, in a "
        ".csv file the first line does not.",
    ),
    "CS153": CodeInfo(
        "an uneven table",
        "All rows of a table have the same columns, each filled, each with a name of its own. A .csv file says the "
        "names on its first line; cells that hold a comma stand in double quotes.",
    ),
    "CS154": CodeInfo(
        "not a list",
        "A list is a file name, entries of text, or a table (a list of mappings, or a mapping from columns to "
        'entries). Numbers need quotes: `["02", "03"]`, for 02 would lose its zero.',
    ),
    "CS155": CodeInfo(
        "an entry that is listed twice",
        "Slots drawn from one list must differ, and every entry has the same chance; an entry that is there twice "
        "breaks both.",
    ),
    "CS156": CodeInfo(
        "not a list file",
        "List files end in .txt (one entry a line) or .csv (a table with a header). A single entry that is not a "
        "file stands in brackets: `places: [store]`.",
    ),
    "CS157": CodeInfo(
        "a list file is too large",
        "List files may hold 10 MB.",
    ),
    "CS158": CodeInfo(
        "a cross-section of nodes or of paths",
        "`cross_section: {nodes: [...]}` restores components in the corrupted run (node level); `cross_section: "
        "{paths: [...]}` restores the edges along paths and nothing else (edge level). A claim is about one of the "
        "two.",
    ),
    "CS159": CodeInfo(
        "a bound for the other direction",
        "Noising a path breaks the clean run, so its bounds are `drop_at_least` and `drop_at_most`; denoising restores "
        "the corrupted run, so there they are `rise_at_least` and `rise_at_most`. Both are shares of the difference "
        "between the clean and the corrupted score.",
    ),
    "CS160": CodeInfo(
        "mediation without three hops",
        "A claim of mediation is about three stops, `of: A -> B -> C`: how much of A's effect on C goes directly, and "
        "how much through B. Longer paths are `path` claims.",
    ),
    "CS161": CodeInfo(
        "through at another level than path",
        "`through` says whether effects pass through MLPs between two hops of a path. Node and edge level have no "
        "hops: write `level: path`, or remove it. Claims of the kinds `path` and `mediation` have a `through` of "
        "their own.",
    ),
    "CS162": CodeInfo(
        "edge or path level without paths",
        "At edge level exactly the declared edges are kept, and at path level the declared paths, so that without "
        "`circuit: paths:` nothing would be kept. Declare them, from `input` to `logits`.",
    ),
    "CS163": CodeInfo(
        "free components at path level",
        "At path level every head is either sent along a path or frozen, and MLPs pass effects on if `through` says "
        "so; nothing else is free. Remove `free`, or use `level: edge`, where free components keep their edges.",
    ),
    "CS164": CodeInfo(
        "a gate of other than two",
        "A claim `gate` is about how two parts work together: `gate: {nodes: [first, second], is: and, metric: "
        "logit_diff}`. Either may be a group, which is noised and denoised as one.",
    ),
    "CS165": CodeInfo(
        "a claim that does not go with the level",
        "`complete` and `minimal` take nodes out of the circuit one by one and in subsets (Wang et al. 2022, section "
        "4). At path level there are no nodes to take out, only paths: write `level: node` or `level: edge`.",
    ),
    "CS166": CodeInfo(
        "a test that could never show it",
        "`beats_random` tests whether the circuit beats more than the share `quantile` of all random circuits. Beating "
        "all of n that were drawn has the p-value quantile ** n, and no test gives less: 29 circuits are the fewest "
        "for a quantile of 0.9 and `at_most_p: 0.05`. A quantile of 0 or 1 leaves nothing to show.",
    ),
    "CS167": CodeInfo(
        "a choice that cannot be varied",
        "`robust_to` names choices of method (level, ablation, corruption, positions, direction) over which a claim is "
        "to hold, or gives their values: `robust_to: {ablation: [mean, zero]}`. The choice or value named does not "
        "exist, is named twice, or cannot be run for this circuit; the message says which. The sixth choice, which set "
        "is patched, is what tells `sufficient` from `necessary`.",
    ),
    "CS168": CodeInfo(
        "not a metric inside the model",
        "Metrics are scores of the output (`logit_diff`, `kl`, ...) or of what the model does inside: the attention "
        "that a head pays from one position to another, a neuron at a position, or the scalar product of a residual "
        "stream or an MLP's output with a direction from a file of numbers:\n"
        "  metric: {attention: a9.h9, from: END, to: IO}     or attention(a9.h9, END -> IO)\n"
        "  metric: {neuron: m1.n42, at: END}                 or neuron(m1.n42@END)\n"
        "  metric: {projection: r5, at: END, along: probe.txt}  or projection(r5@END, probe.txt)\n"
        "  metric: {routing: m3.e5, at: END}                 or routing(m3.e5@END)\n"
        "The last is the weight with which a router chooses an expert, zero where it does not. They are measured at "
        "node level, and all but projections at edge level too.",
    ),
    "CS169": CodeInfo(
        "a reference that cannot be used",
        "`ablation: reference:` says over which prompts means are taken. It goes with `value: mean` and "
        "`mean_per_template`. A number draws so many other prompts by the task's own rules, so it needs templates "
        "or a generator, and 8 at the least. `{file: more.jsonl}` names a file of further prompts and goes with "
        "prompts from a file. `prompts` takes the scored prompts themselves, which is what happens unasked where "
        "prompts come from a file.",
    ),
    "CS170": CodeInfo(
        "a component beyond the stated size",
        "`model: {size: 12x12x768}` says that the model has 12 layers of 12 heads, and a name in groups, free, paths, "
        "claims or metrics means a layer or head that such a model does not have. Both count from 0: the last head is "
        "a11.h11. How many neurons and key-value heads there are is not stated; these are checked where the model's "
        "configuration is on this machine (CS220). Correct the name, or the size.",
    ),
    "CS171": CodeInfo(
        "a mapping with too many keys",
        "A mapping of a hypothesis may have 10,000 keys; the file is not read beyond that. It is meant to be read by "
        "people: long tables belong in .csv files (`lists: {cities: cities.csv}`), prompts in a .jsonl file.",
    ),
    "CS172": CodeInfo(
        "braces without quotes",
        "YAML reads `answer: {IO}` as a mapping with the key IO. A slot in a template or an answer is text, and text "
        'that starts with a brace needs quotes:\n\n    answer: " {IO}"\n\nNames of positions and corruptions are '
        "written without braces: `at: END`, `from: abc`.",
    ),
    "CS173": CodeInfo(
        "more random circuits than a plan can hold",
        "`beats_random: {circuits: N}` draws N circuits and runs each of them; all are written down before the first "
        "is run. So many would take more memory than a plan may. The message says how many are possible. The more are "
        "drawn, the smaller the p-values that can be told apart: with a quantile of 0.9, 29 can reject at 0.05.",
    ),
    "CS174": CodeInfo(
        "how a file is read, without a file",
        "`columns`, `layout`, `skip` and `by` say how the rows of a prompts file are read, which are left out and by "
        "what they are told apart. Prompts from templates or a generator have no rows, so that the key would have no "
        "effect. By template their figures are broken down anyway.",
    ),
    "CS175": CodeInfo(
        "two keys that say the same",
        "`layout` says in which known layout a prompts file is, `columns` which of its columns is what: one of them "
        "is enough, and both could contradict each other. Likewise `skip` names each kind of row once.",
    ),
    "CS177": CodeInfo(
        "no slot where one is needed",
        "`{slot: S, tokens: all}` names all tokens of a slot, `{slot: S#2, tokens: all}` those of its second "
        "occurrence. A position such as `last` or `S + 1` is one token: write it as it is, without a mapping. Several "
        "tokens that no slot fills are named by indices, `[0, 1, 2]`, or by their text, `{text: ..., tokens: all}`.",
    ),
    "CS178": CodeInfo(
        "a message without the prompt",
        "`chat: {user: ...}` is the user's message, and `{prompt}` in it, once, is where each prompt stands:\n"
        '  chat: {user: "Complete the sentence: {prompt}"}\n'
        "Without `user` the message is the prompt alone. Other braces stand for themselves.",
    ),
    "CS179": CodeInfo(
        "a column that no template shows",
        "A corruption may show another column of a slot's row: with the table `nouns: [{one: key, many: keys}]`, the "
        "slot `S: $nouns.one` and the template `The {S}`, the corruption `flip: {S: =S.many}` gives `The keys`. It "
        "changes what `{S}` says. Here templates and answers name columns alone, as in `{S.one}`, and these stay as "
        "they are.",
    ),
    "CS180": CodeInfo(
        "features where edges or paths are cut",
        "At edge and path level a circuit is made of what heads and MLPs send one another, which adds up to all that "
        "the model does; features of a dictionary are parts of one value, and what a few of them send does not. Write "
        "`level: node`, and claim `path` or `mediation` of paths on which features stand: these are patched one by "
        "one, at every level.",
    ),
    "CS181": CodeInfo(
        "a score that whole answers do not have",
        "With `score: sum_logprob` answers of several tokens have summed log probabilities, and no logits: logit, "
        "logit_diff and rank are not defined. Claim logprob_diff (which is logit_diff where answers are one token), "
        "logprob, prob, prob_diff, accuracy or kl; accuracy needs `wrong` then. Or write `score: first_token`.",
    ),
    "CS182": CodeInfo(
        "no place that a dictionary takes apart",
        "`at` says which value of the model a dictionary was trained on: r8 (the residual stream entering block 8), "
        "r8.mid (between its attention and its MLP), z3 (the outputs of a layer's heads, side by side), a3 or m3 (what "
        "attention or MLP adds to the stream). A transcoder is of m3, and reads what enters that MLP. What other tools "
        "call blocks.7.hook_resid_post is r8. Two dictionaries of one place cannot be used together.",
    ),
    "CS183": CodeInfo(
        "a dictionary that is not declared",
        "`sae:NAME.f12` is feature 12 of the dictionary NAME, which `dictionaries` has to name: of which place it is "
        "(`at`) and where its weights lie (`from`).",
    ),
    "CS184": CodeInfo(
        "an expression that cannot be read",
        "A variable of `abstraction` is an expression over slots, columns of tables and earlier variables:\n"
        "  0 if S2 == second else 1        a choice\n"
        "  S.number == 'plural'            a column of the table that S is drawn from\n"
        "  B in (first, second) and not C  lists stand behind `in` alone\n"
        "  tens + 1                        + and - are of numbers\n"
        "It calls nothing, has no brackets behind names and no loops, so that it always comes to a value. Texts stand "
        "in quotes of the other kind than the YAML's.",
    ),
    "CS185": CodeInfo(
        "a subspace",
        "A subspace is of one component whose value is a single vector: a residual stream, an MLP's output, a head's "
        "output (of several components that `nodes` names, `circuitspec align` chooses one). A key-value head has two "
        "values, and a neuron's is a single number. Name the residual stream behind them, which has all that they "
        "wrote, or leave `subspace` out, so that they are patched whole.",
    ),
    "CS186": CodeInfo(
        "a family of pairs that does not say how sources are made",
        "Each family of `pairs` makes the source of a pair in one way: `redraw: [SLOT]` draws slots afresh and "
        "`slots: {SLOT: =OTHER}` sets them (the two go together), `corruption: NAME` takes the base's prompt in that "
        "corruption, `permute: true` another clean prompt of the same template, `file: pairs.csv` what a file says.",
    ),
    "CS187": CodeInfo(
        "what an interchange claim is of",
        "`interchange: {variable: position}` is about one variable and is judged on every family of pairs (or those in "
        "`pairs`). `interchange: {variables: {position: reversed, answer: other_names}}` is about several at once, "
        "each of which takes its value from a source of the family that is named.",
    ),
    "CS188": CodeInfo(
        "a name that an expression does not know",
        "Expressions know the task's slots, the columns of slots that are drawn from tables (`S.plural`) and the "
        "variables written before them. Where prompts come from a file, they know the columns that every row has "
        "beside what is read as prompt, answers, positions and template.",
    ),
    "CS189": CodeInfo(
        "values that do not go together",
        "An expression has texts, numbers and truths. `and`, `or`, `not` and `if` are about truths (what ==, <, `in` "
        "give); + and - are of numbers; the two sides of `x if c else y` are of one kind. A slot is a text; where it "
        "is compared with a number, added, or stands at <, it must spell a plain number.",
    ),
    "CS190": CodeInfo(
        "a variable with the name of a slot",
        "Expressions name slots and variables alike, so that no variable may have the name of a slot.",
    ),
    "CS191": CodeInfo(
        "an output that is no answer",
        "`output` says what the high-level model answers: a variable, which takes the place of the one slot in the "
        'task\'s `answer`, or a text with variables and slots in it, such as `" {answer}"`. A truth is no answer: '
        "make it a text with `'yes' if V else 'no'`.",
    ),
    "CS192": CodeInfo(
        "an alignment that does not fit",
        "`align` says for variables which components carry them. It names a variable that there is not, or a claim is "
        "about one that it does not name.",
    ),
    "CS193": CodeInfo(
        "a slot that cannot be redrawn, or set so",
        "A slot that is drawn from a table can only be set to rows of the same columns. `redraw` draws slots afresh "
        "from their own lists; a slot that copies another (`S2: =S1`) follows that one. To give it another value, set "
        "it: `slots: {S2: =IO}`. Prompts from a file have no lists: their pairs are permuted, or come from a file too.",
    ),
    "CS194": CodeInfo(
        "variables without slots",
        "High-level variables are expressions over the slots of templates, or over the columns that a prompts file has "
        "beside its prompts. Prompts made by a generator have neither.",
    ),
    "CS195": CodeInfo(
        "a claim about a variable that there is not",
        "`interchange` and `isolates` are about the variables and pairs that the file declares under `abstraction`.",
    ),
    "CS196": CodeInfo(
        "what is carried is not said",
        "`scrubbed` replaces every value on the declared paths by one from a prompt that agrees on what it carries "
        "alone. So there must be `paths`, and `circuit: carries` must say what values on them carry: a list of slots "
        "and variables, everything (the value is not tested), or nothing.",
    ),
    "CS197": CodeInfo(
        "something is carried that there is not",
        "`carries` names slots of the task and variables of `abstraction`; of prompts from a file, their columns.",
    ),
    "CS198": CodeInfo(
        "sources where nothing travels along paths",
        "`sources` says for the starts of paths from which corruption their values come. So the claim must be about "
        "paths: a `path` claim, a `cross_section` of `paths`, or `sufficient` at `level: path` under the file's own "
        "method.",
    ),
    "CS199": CodeInfo(
        "an error that is left out, and named",
        "With `error: remove` what a dictionary's features leave over has no value in the runs that a claim makes, so "
        "that a circuit cannot have `sae:NAME.error` inside. Write `error: ablate`, by which it takes the values that "
        "all else outside the circuit takes, unless the circuit names it; or name it nowhere.",
    ),
}
