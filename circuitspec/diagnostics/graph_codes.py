"""CS2xx: components, positions and paths that the model or the circuit does not have."""

from __future__ import annotations

from circuitspec.diagnostics.code_info import CodeInfo

GRAPH: dict[str, CodeInfo] = {
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
    "CS230": CodeInfo(
        "a variable without a value in a prompt",
        "The expression of a variable compares or adds a slot's text as a number, and in the prompt named the text "
        "spells none. Plain numbers such as 17 and 0.5 do, with up to 15 digits; 1,000 and ten do not.",
    ),
    "CS231": CodeInfo(
        "the high-level model contradicts the task",
        "What the high-level model answers to each of the task's own prompts must be a right answer of that prompt, as "
        "`answer` says it. Otherwise pairs would be scored against answers that the task calls wrong. Look at the "
        "table that `circuitspec check` prints, and correct the variables or `output`.",
    ),
    "CS232": CodeInfo(
        "a pair that cannot be made",
        "The source of a pair must differ from its base. A family that sets or redraws slots that a template does not "
        "have, that draws from a list with nothing else in it, or that permutes a single prompt, leaves the base as it "
        "is.",
    ),
    "CS233": CodeInfo(
        "a source that does not fit its base",
        "Components of the base run take the values that they have in the source run at the token that corresponds: at "
        "the same named position, wherever that is in the source. Where base and source have other numbers of tokens, "
        "or a position at another one, tokens between slots correspond from their start as long as they are the same, "
        "those of a slot where both have as many; of prompts from a file named positions alone do. Elsewhere no value "
        "is defined. Align variables at positions (`at: END`), or let lists have entries of equally many tokens. A "
        "position of several tokens must have as many in both.",
    ),
    "CS234": CodeInfo(
        "variables aligned with the same component",
        "An interchange of several variables gives each component the values of one source. Here two variables are "
        "aligned with one component at one position.",
    ),
    "CS235": CodeInfo(
        "a subspace that is not learned yet",
        "The variable is aligned with a subspace of which only the rank is written. `circuitspec align FILE` learns it "
        "on pairs of prompts and writes a file with its basis; name that file: `subspace: {rank: 2, file: "
        "x.subspaces.safetensors}`.",
    ),
    "CS236": CodeInfo(
        "a file of subspaces that does not fit",
        "The file is safetensors, with a tensor `[width, rank]` by the variable's name, whose columns are orthonormal "
        "(each entry of R^T R within 1e-5 of the identity's), and with metadata that say of which component at which "
        "positions it is a basis. All of this must be as the alignment in the hypothesis says, or one of what it "
        "lists: a basis of one layer means nothing in another. `circuitspec align` writes such files.",
    ),
    "CS237": CodeInfo(
        "an entry of carries about no value on a path",
        "An entry of `circuit: carries` is about a group or component on a declared path, or about the beginning of a "
        "path from a component on: `A -> B<v>` is the value of A that B reads by v. An entry that names "
        "positions may be about some of those at which a path starts; of a value on the way, which is computed, it "
        "names all. "
        "`circuitspec check` lists all values on the paths.",
    ),
    "CS238": CodeInfo(
        "a value that carries what nothing that leads to it does",
        "What a value carries is computed from what it reads. So each slot and variable that it is said to carry must "
        "be carried by something on a path that leads to it, or be a variable of such; and the embedding of a slot's "
        "token has nothing but this slot. Otherwise the claim could not hold for any model, or would hold by a path "
        "that the hypothesis does not have.",
    ),
    "CS239": CodeInfo(
        "two entries about one value on a path",
        "Of several entries of `carries` or `sources` that are about one value on a path the one counts that names the "
        "path the furthest, and of these one that names an input. Here two say as much, and not the same.",
    ),
    "CS240": CodeInfo(
        "a tree that is too large to be scrubbed",
        "Causal scrubbing computes each use of a component on a path by itself, so that paths through groups of many "
        "components multiply.",
    ),
    "CS241": CodeInfo(
        "no prompt that agrees can be drawn",
        "Slots that are carried are kept when prompts are drawn. For variables prompts are drawn until one has the "
        "values of the reference, a thousand times at most. A corruption in which a variable never has the reference's "
        "value gives none: let slots be drawn by the task's own rules as well, `from: [clean, CORRUPTION]`.",
    ),
    "CS242": CodeInfo(
        "a drawn prompt that does not fit the prompt that it is drawn for",
        "Values of the run on a drawn prompt are put at the same token of another run. So both must have the same "
        "number of tokens, and the positions that are named must be at the same tokens. Let lists have entries of "
        "equally many tokens.",
    ),
    "CS243": CodeInfo(
        "a column is carried that the prompts file has not",
        "Prompts of a file have no slots: what `carries` names are its columns. Rows that agree on them stand for each "
        "other.",
    ),
    "CS244": CodeInfo(
        "a source that no path has",
        "An entry of `sources` is about the start of a path of the claim: by the component or group, or by the "
        "beginning of the path. No path of this claim starts so; what stands in its middle is computed.",
    ),
    "CS246": CodeInfo(
        "no such feature",
        "The features of a dictionary are counted from 0, and it has no feature of this number. Tools count alike, so "
        "that a number of Neuronpedia or of SAELens is the number here, if the dictionary is the same.",
    ),
    "CS247": CodeInfo(
        "features cannot be used here",
        "Features of dictionaries are nodes of circuits that `verify`, `plan`, `check`, `explore` and `align` read, "
        "with their dictionaries beside the model. Here the dictionary is not at hand, or the name is one that reports "
        "write. `export --as feature-list` and `--as attribution-graph` write features for other tools.",
    ),
    "CS248": CodeInfo(
        "a feature that cannot stand on a path",
        "Paths go along the residual stream. A feature of the stream reads it where its dictionary stands, and a "
        "feature of a transcoder what the MLP reads; what dictionaries of heads or of an MLP's output read is computed "
        "from the stream by these, so that a path may start at their features and not lead to them. Where edges are "
        "cut (edge level, restored paths of a cross-section) and along paths that make up a circuit (path level, "
        "scrubbing) there are heads and MLPs alone: what they send adds up to the stream, and what single features "
        "send does not.",
    ),
    "CS249": CodeInfo(
        "a feature beside what it is a part of",
        "A dictionary of m3 says what m3 is made of. On the paths of one claim there is either m3, which sends all of "
        "it, or features of it, which send their shares; with both it would be sent twice.",
    ),
    "CS252": CodeInfo(
        "a circuit that no search finds",
        "A claim `stable` makes the search of `explore` anew on other prompts and counts how often it chooses each "
        "member. That search chooses whole heads and MLPs at named positions, at node level. Neurons, features, "
        "experts, streams, and circuits that are paths (edge and path level) or kept at every position are not what it "
        "chooses.",
    ),
    "CS253": CodeInfo(
        "too few searches",
        "The share of searches that choose a member has an interval (Wilson, 95 %), which must lie inside the bound. "
        "Of n searches that all choose it, it begins at n / (n + 3.84): 16 searches are the fewest that can show 0.8, "
        "35 the fewest for 0.9.",
    ),
}
