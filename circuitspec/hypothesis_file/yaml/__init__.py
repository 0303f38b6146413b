"""YAML 1.2 as plain data that knows where each key and value stands, and back.

In comes the text of a file, out come nodes with places; writing goes the other way. What a data file has no need of
(tags, merge keys, alias bombs) is refused here.
"""
