"""Claims are planned, decided and put into words here, each as its kind says (`kinds`, listed in `registry`).

In come the claims of a file, and records of the runs that they take; out come plans, and results with the numbers that
decide them: SUPPORTED, REFUTED or INCONCLUSIVE. Reports set the tables and words that a kind gives; none knows a kind.
"""
