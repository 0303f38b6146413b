"""Reports that a person reads in a terminal, and their tables.

In come views and results; out come lines of text.
"""
