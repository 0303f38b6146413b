"""First-order estimates and direct effects: what many patches would do, from few passes.

In come two runs and a metric; out comes an estimate for every component or edge, or what each adds to the logits.
Estimates are of first order: what they miss is found by patching.
"""
