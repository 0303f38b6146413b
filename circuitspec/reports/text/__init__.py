"""Reports that a person reads in a terminal, and their tables.

In come views and results; out come lines of text. Whatever a file or model is called is shown as visible characters.
"""
