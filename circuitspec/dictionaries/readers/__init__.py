"""The layouts in which other tools save dictionaries, a module or two each; `all_formats.py` lists them.

In comes the path that a hypothesis names; out comes a `StoredDictionary`, or an error at the place where it is named.
What a module reads is checked against its own settings: shapes, thresholds, k, and whether its architecture is known.
"""
