"""Pairs of prompts on their way from a file to a run, and as `check` shows them.

In come a hypothesis with high-level variables and its prompts; out come the pairs, as tokens of the model, and a table.
"""
