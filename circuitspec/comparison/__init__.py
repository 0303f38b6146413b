"""Circuits side by side: what they share, how much random circuits would, and whether they do the same.

In come hypothesis files and saved results; out comes a comparison, and its text, page and JSON. What circuits share
is arithmetic on their graphs and needs no model; what they do on each other's prompts is planned here, and run by a
pipeline. Imports no torch.
"""
