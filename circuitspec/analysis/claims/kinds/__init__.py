"""The kinds of claims: a class for each, with its runs, how it is judged, and how reports tell of it.

In comes a claim of the file or the records of its runs; out come experiments with names, a judgement, tables and words.
What two kinds share stands in `circuit_claims`, `path_claims` and `subset_claims`; all are listed in `claims.registry`.
"""
