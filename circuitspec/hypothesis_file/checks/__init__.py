"""Checks that look at more than one value of a file and need no model.

In comes a `Hypothesis` with its source; out come diagnostics. There is one module for each block that is checked.
"""
