"""What is run, as values: no torch.

In come a hypothesis and its model graph; out comes a `Plan` of `Experiment`s: base, source, what is patched at which
level. Two experiments with equal content are the same experiment.
"""
