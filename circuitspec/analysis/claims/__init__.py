"""Claims are decided here: SUPPORTED, REFUTED or INCONCLUSIVE.

In come a planned claim and records; out comes its result with the numbers that decide it.
"""
