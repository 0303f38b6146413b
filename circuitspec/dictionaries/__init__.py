"""Dictionaries of features: sparse autoencoders and transcoders, as values and as the files that other tools write.

In comes a file or folder that a hypothesis names; out comes a `Dictionary`, whose `encode` and `decode` are those of
the tool that wrote it, or an error. Nothing in a file is run, and no such tool is imported. A layout of files is one
row in `readers/all_formats.py`.
"""
