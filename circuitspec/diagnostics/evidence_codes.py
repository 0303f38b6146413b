"""CS4xx: the validity of evidence, as `explore` and a run itself speak of it.

The texts of the warnings that a verification finds stand with what finds them, in `analysis/warnings/`.
"""

from __future__ import annotations

from circuitspec.diagnostics.code_info import CodeInfo

EVIDENCE: dict[str, CodeInfo] = {
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
        "claims: all drafts claim that 0.8 to 1.2 is recovered, and at most 0.3 left with the circuit ablated. "
        "`verify` will not support such a draft. Look at more (`--exact`, `--max-forwards`), or leave out of the claim "
        "what the circuit cannot do without (`--free`). A circuit of helpful components alone may recover more "
        "than the model.",
    ),
    "CS414": CodeInfo(
        "a circuit with nothing in it",
        "Of all that `explore` looked at, nothing changes the score, or the target is met with all of it ablated. Then "
        "what is free (`--free`), or reads the embeddings directly, does the task; or what does it was not among what "
        "was patched. A circuit of helpful components alone is also empty where all that acts is "
        "negative. There is nothing to claim, so there is no draft. Leave less free, corrupt other slots, take "
        "another metric, or look at more (`--exact`, `--max-forwards`, `--start resid`).",
    ),
    "CS430": CodeInfo(
        "no random circuits to compare with",
        "Random circuits have the size and layer profile of the circuit: the heads of each layer (and neurons of each "
        "MLP) exchanged for others of it, free components and MLPs left where they are. Where the circuit has all "
        "heads of its layers, or MLPs alone, that gives the circuit itself again, and nothing can be compared. "
        "Features of dictionaries are exchanged for features that are active at as many tokens of their positions; "
        "where too few others are active there at all, there is nothing to compare with either.",
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
    "CS474": CodeInfo(
        "circuits that do as well, and differ",
        "`compare --run` found two circuits that recover the same share of the metric (within 0.1), and whose outputs "
        "lie farther from each other (by KL over the whole vocabulary) than those of either lie from the model's. A "
        "metric of two tokens does not tell them apart, so that neither is *the* circuit by its figure. Look at the "
        "prompts on which they are farthest apart, claim `kl` too, and say which of the two explanations is meant.",
    ),
}
