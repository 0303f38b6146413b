"""Claims about high-level variables: `interchange` and `isolates`, judged on pairs of prompts.

In comes a claim with the alignment and pairs of its file; out come its runs, and shares of pairs with their intervals.
Claims about subspaces take more runs once the model's values are known (`subspace_trials`), which their figures are
held against.
"""
