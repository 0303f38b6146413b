"""Pairs of prompts on their way from a file to a run, as `check` shows them, and as `align` learns from them.

In come a hypothesis with high-level variables and its prompts; out come the pairs, as tokens of the model, and a table.
Learning subspaces is three steps: `pair_splits` draws pairs of disjoint words, `subspace_search` learns and chooses,
and `alignment_controls` says what else would score as much. `alignment_text` sets what was found, with what
`alignment_warnings` has against it.
`variable_sweep` looks for a variable place by place, and `place_subspaces` learns where it was found.
"""
