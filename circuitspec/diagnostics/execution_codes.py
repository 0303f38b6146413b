"""CS5xx: what went wrong in a run, and what its outcome is compared with."""

from __future__ import annotations

from circuitspec.diagnostics.code_info import CodeInfo

EXECUTION: dict[str, CodeInfo] = {
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
    "CS514": CodeInfo(
        "an attention pattern of a prompt of another length",
        "What a head attends to is a weight for every token, and the weights of a query position add up to one. A "
        "pattern of a run on more or fewer tokens has other tokens to weigh, so that it cannot be put in place of this "
        "one. Give prompts of equal token counts, or patch the head itself (`a9.h6`) instead of its pattern "
        "(`a9.h6.pattern`).",
    ),
    "CS515": CodeInfo(
        "an object that cannot be verified as it is",
        "What was passed from Python is no plain causal language model of the transformers library, or its tokenizer "
        "is none: it has adapters that are not merged (`model = model.merge_and_unload()`), quantised weights (load it "
        "unquantised), a wrapper around it, no configuration, or no unembedding; or it is a model of another library; "
        "or hooks that were to be kept stand where logits are read past them. The message says what to give instead. "
        "Nothing was run.",
    ),
    "CS516": CodeInfo(
        "no model, neither named nor passed",
        "A hypothesis that is built or loaded in Python may leave `model` out where the model is an object in memory. "
        "It then has to be passed wherever something is run: `circuitspec.verify(hypothesis, model, tokenizer)`. The "
        "command line takes only files that name their model.",
    ),
    "CS517": CodeInfo(
        "a metric of the caller's own that gives no numbers",
        "`metric=function` is called with a frozen value, `run`: `run.logits` [batch, vocabulary] at the last token, "
        "`run.answers` and `run.wrong` (`ids` and `scores` with a `mask`, or None), `run.clean_logprobs`, and "
        "ready-made parts such as `run.mean(run.answers)`. It has to return one number a row, [batch]. Forwards hold "
        "prompts, and copies of them, in any order, so that a row is a prompt and nothing is known of its number. "
        "Answers that are scored whole (`score: sum_logprob`) have no one token at which it could be called.",
    ),
    "CS518": CodeInfo(
        "a result that cannot be locked",
        "A lock holds all that a result depends on. A metric of the caller's own (`metric=function`) is Python code "
        "that no file holds, and a hypothesis that is not saved has no file beside which the lock could lie. Leave the "
        "metric out, or save the hypothesis first.",
    ),
    "CS519": CodeInfo(
        "attention patterns are those of a run",
        "`a9.h6.pattern` stands for what a head attends to. It is patched with the pattern that the head has in "
        "another run, for the same prompt: zeros would take away all that the head gives, and a mean over prompts "
        "attends to tokens that in each of them mean something else. Write `ablation: {value: resample, from: "
        "CORRUPTION}` (or `gaussian`), or name the head itself (`a9.h6`).",
    ),
    "CS520": CodeInfo(
        "attention patterns of a model that cannot be patched",
        "A patched pattern is put in by computing the head's output anew: its weights times the values of the same "
        "run. That is exact where a head gives the weighted sum of what its value projection gives, with weights that "
        "add up to one. Before any pattern is patched, it is tested on this model with random tokens; it was found not "
        "to hold. Patch heads (`a9.h6`) or key-value heads (`a9.kv2`) instead.",
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
    "CS524": CodeInfo(
        "nothing to learn",
        "`circuitspec align FILE` learns subspaces for variables whose alignment names a rank and no file: `align: "
        "{answer: {nodes: [r3], at: END, subspace: {rank: 2}}}`. The component must have at least as many numbers a "
        "token as the rank, and answers must be single tokens.",
    ),
    "CS525": CodeInfo(
        "pairs that teach nothing",
        "Pairs of which the unpatched model answers base or source wrong are left out, and of one of the splits "
        "(training, validation, test) none is left. A subspace cannot be learned or tested there.",
    ),
    "CS528": CodeInfo(
        "no such variable to look for",
        "`explore --variable V` (and `circuitspec.interchange_sweep`) takes each place of the model in turn to be "
        "where V is. V must be one of the file's high-level variables: `abstraction: {variables: ..., output: ..., "
        "pairs: ...}`. Where variables are aligned need not be said: that is what is looked for.",
    ),
    "CS529": CodeInfo(
        "no values that could carry anything",
        "`explore FILE --carries` finds out how little each value on FILE's declared paths may carry. So it needs "
        "paths that lead to the logits (`circuit: {paths: [A -> B<q>, B -> logits]}`) and surely recover something, "
        "slots or columns in which prompts differ, and a metric by which random prompts do worse than the clean ones.",
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
        "changes the metric, or the target is met with all of it ablated (CS414). A hypothesis claims something of "
        "components, so the file is not written; one that was there is left as it was. Leave less free (`--free`), "
        "corrupt other slots, or take another metric.",
    ),
    "CS544": CodeInfo(
        "Features cannot be explored so",
        "Where a file has `dictionaries`, `explore` searches their features, at node level; heads and MLPs are free. "
        "What is for heads and MLPs alone (coarse to fine from the residual stream, recomputed attention) does not go "
        "with it. A feature that has the same weight in what is patched in as in the run itself does nothing; where "
        "that is so of all of them at every named position, there is nothing to find.",
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
    "CS567": CodeInfo(
        "no folder of a causal-variable submission",
        "The benchmark MIB takes a folder for each task, model and variable, named TASK_MODEL_VARIABLE (such as "
        "ioi_task_GPT2LMHeadModel_output_position), with three files for each unit: UNIT_featurizer, "
        "UNIT_inverse_featurizer and UNIT_indices.",
    ),
    "CS568": CodeInfo(
        "which unit of a submission",
        "A submission has files for several units: residual streams of layers, or heads, at token positions. Each is "
        "scored by itself, so a hypothesis is of one: `--entry` names it, as the files do or as a hypothesis would. "
        "MIB's ResidualStream of layer L is what block L puts out, which enters block L + 1: r6 for layer 5. What the "
        "last block puts out has no name here.",
    ),
    "CS569": CodeInfo(
        "an alignment that a submission cannot say",
        "MIB's causal-variable submissions have subspaces of residual streams between blocks, and of heads, or these "
        "as a whole, at one token position each. An alignment with anything else (the input, MLPs, streams within a "
        "block, several positions), or with a subspace that is not learned yet, cannot be exported.",
    ),
    "CS570": CodeInfo(
        "rows of pairs that do not say enough",
        'A data set of pairs has rows {"input": {...}, "counterfactual_inputs": [{...}]}. Each input must be an '
        "object with the prompt as `raw_input`, the answer that the causal model gives it as `raw_output`, and the "
        "values that variables are computed from, each under its name. In rows that are texts alone, the causal model "
        "that made them (code) says the rest: save its inputs with these keys.",
    ),
    "CS571": CodeInfo(
        "features that write to several layers",
        "An attribution graph may be of cross-layer transcoders, of which a feature reads one layer and writes to all "
        "later ones. Its nodes look like those of transcoders of one layer (circuit-tracer calls both `cross layer "
        "transcoder`), so that only names tell: that of the scan or of the transcoders, or config.yaml in their "
        "folder. They are not run here: such features are no part of one MLP's output. Trace the prompt with a set of "
        "per-layer transcoders. Where a name misleads, `--dictionaries DIR` names the transcoders' folder, whose files "
        "decide.",
    ),
    "CS572": CodeInfo(
        "which nodes of a graph are the circuit",
        "All features and errors of an attribution graph are taken for the circuit, unless a part is asked for: "
        "`--top N`, those of the largest influence; `--influence 0.6`, those that together have this share of all "
        "influence; `--pinned`, what the viewer's user pinned. Influence is what circuit-tracer writes as `influence`: "
        "the share that a node has together with all that have more, so that the most influential node has the "
        "smallest number. Here the file has none, or nothing is left, or there is no prompt in it.",
    ),
    "CS573": CodeInfo(
        "a graph of another model",
        "An attribution graph has the layers of the model that it was made of, and its token ids. The model that "
        "`--model` names has fewer layers, or its tokenizer makes another text of these ids, so that the features "
        "would be looked for in the wrong model. Name the one that the graph was made of.",
    ),
    "CS574": CodeInfo(
        "a list of features that does not say enough",
        "A list of features (`import --as feature-list`) is JSON or a table with the columns dictionary, index, "
        "position, group and at. The dictionary is named by its place (r4, m3), as feature-circuits names its modules "
        "(embed, attn_3, mlp_3, resid_3; resid_3 is what block 3 puts out, r4), or by any name, with the place in "
        "`at`. The index counts from 0, or is `error`. A position is a token's index, counted from 0 without special "
        "tokens in front, or a position that the prompts name; without one the feature stands at every token.",
    ),
    "CS575": CodeInfo(
        "nodes that a format has no word for",
        "An attribution graph has features and errors of transcoders, one a layer, at the tokens of one prompt; a list "
        "of features those of any dictionary. Neither has heads, MLPs, neurons or residual streams, or all features of "
        "a dictionary at once. The formats of heads and MLPs in turn have no features. Export each part of the circuit "
        "in a format that has it, or declare the nodes that the message names `free`.",
    ),
    "CS576": CodeInfo(
        "features cannot be written as plain pyvene",
        "pyvene has interventions on the features of sparse autoencoders, and they replace the model's value by the "
        "reconstruction: what the features leave over is lost, even where nothing is patched. Here it is kept, unless "
        "the hypothesis says otherwise, so that a bundle would run other experiments than `verify`. Hypotheses that "
        "declare `dictionaries` are verified, and their features exported as a list or as an attribution graph.",
    ),
    "CS580": CodeInfo(
        "no circuit to compare",
        "`circuitspec compare` takes hypothesis files (drafts and imported ones too) and results that have the "
        "hypothesis in them: folders of `verify --output-dir`. What `verify --format json` prints has numbers alone, "
        "and a lock digests. Circuits of other tools become hypotheses by `circuitspec import`.",
    ),
    "CS581": CodeInfo(
        "models of different shapes",
        "Circuits are compared component by component, so their models must have as many layers, heads, key-value "
        "heads and neurons. A head of one model has no counterpart in another one of another size.",
    ),
    "CS582": CodeInfo(
        "circuits of different models cannot be run together",
        "`compare --run` ablates what lies outside each circuit in one model, on the prompts of each file. Files that "
        "name several models (or one in several precisions) can be compared without `--run`: what they share needs no "
        "run. From Python a model may be passed, in which all of them are run.",
    ),
    "CS583": CodeInfo(
        "different dictionaries",
        "A feature is a feature of one dictionary. Files that are compared by running them in one model must declare "
        "the same dictionaries under the same names, with the same settings, or none at all.",
    ),
    "CS584": CodeInfo(
        "too few prompts to repeat a search on",
        "`explore --stability` repeats the search on random halves of the prompts, and no circuit is chosen on fewer "
        "than ten. Where prompts come from a file, a third of them is held out of the search, so that it takes 30 to "
        "have 20 to halve.",
    ),
}
