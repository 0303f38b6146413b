"""A first hour with a model in memory: patch one head, sweep all, draw, follow a path, save a hypothesis, verify it."""

from transformers import AutoModelForCausalLM, AutoTokenizer

import circuitspec
from circuitspec.models.zoo import zoo_path

folder = zoo_path("ioi-tiny")  # or the name of any causal language model on the Hugging Face hub
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)

task = {
    "templates": ["When {IO} and {S1} met at the {place}, {S2} handed a ring to"],
    "slots": {"IO": "$names", "S1": "$names", "S2": "=S1", "place": "$places"},
    "lists": {"names": ["Mary", "John", "Paul", "Anna", "Peter", "Laura"], "places": ["store", "park", "school"]},
    "answer": " {IO}",
    "wrong": " {S1}",
    "corruptions": {"abc": {"IO": "$names", "S1": "$names", "S2": "$names"}},
    "positions": {"END": "last"},
    "prompts": 24,
}
lab = (model, tokenizer, task)

one = circuitspec.patch(*lab, "a2.h2@END", unpatched=True)
print(one[["experiment", "logit_diff", "recovered_logit_diff"]].round(3).to_string(index=False))

heads = circuitspec.sweep(*lab, "heads", "denoising", at="END")
print(heads.pivot(index="layer", columns="head", values="recovered_logit_diff").round(3).to_string())
heads.heatmap(title="heads restored at END").save("first-hour.svg")

paths = circuitspec.path_patch(*lab, ["a2.h2@END -> logits", "a2.h2@END -> a3.h0<q>"])
print(paths[["layer", "head", "receiver", "recovered_logit_diff"]].round(3).to_string(index=False))

pattern = circuitspec.record(*lab, "a2.h2.pattern@END")["clean"]["a2.h2.pattern@END"].mean(axis=0)
print(f"a2.h2 attends from END to token {pattern.argmax()} with weight {pattern.max():.3f}")

claims = [circuitspec.claim("necessary", metric="logit_diff", at_most=0.3)]
inhibition = circuitspec.hypothesis(
    "first-hour", task=task, groups={"inhibition": "a2.h2@END"}, ablation="zero", claims=claims
)
result = circuitspec.verify(inhibition.save("first-hour.circuit.yaml"), model, tokenizer)
for claim in result.claims:
    print(claim.status, claim.kind, f"{claim.value:.3f}")
