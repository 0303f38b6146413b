"""Circuits in the formats of other tools: read into hypotheses, and written from them.

In comes another tool's file; out comes a list of edges or nodes, and from it the text of a hypothesis. What is lost
on the way is said.
"""
