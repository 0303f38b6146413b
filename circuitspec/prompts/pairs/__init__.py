"""Pairs of prompts for interchange interventions, and the high-level model that says how they are answered.

In comes the `abstraction` block with a task's prompts; out comes a `PairSet`: a source for each prompt in every family,
and what the high-level model answers when variables take their values in sources. `pair_tokens` makes variants of the
tokenized task of it.
"""
