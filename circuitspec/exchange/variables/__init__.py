"""What other tools say of high-level variables: MIB's causal-variable submissions, and data sets of base/source pairs.

In come folders of featurizers, or rows of pairs; out come bases of subspaces with their sites, prompts and pairs. What
is lost on the way is said.
"""
