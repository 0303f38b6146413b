"""Which forwards a set of experiments takes, and what each of them shares with others.

In come experiments; out come what is to be known first, and batches of rows in which several of them run together.
Where no feature of a dictionary moves, nothing is run: the base run is known.
"""
