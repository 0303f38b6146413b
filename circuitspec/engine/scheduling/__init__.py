"""Which forwards a set of experiments takes, and what each of them shares with others.

In come experiments; out come what is to be known first, and batches of rows in which several of them run together.
Where a feature of a dictionary does not move, nothing is run: the base run is known.
"""
