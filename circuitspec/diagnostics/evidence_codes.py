"""CS4xx: the validity of evidence."""

from __future__ import annotations

from circuitspec.diagnostics.code_info import CodeInfo

EVIDENCE: dict[str, CodeInfo] = {
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
}
