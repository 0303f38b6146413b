"""A model measured as it is, with nothing patched: direct logit attribution and the logit lens.

In comes a file with a model and a task; out comes a table. No claims, no circuit and no corruption are needed.
"""
