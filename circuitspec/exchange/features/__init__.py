"""Circuits of dictionary features in the formats of other tools: attribution graphs, and plain lists of features.

In comes another tool's file; out comes a `FeatureCircuit`, and from it the text of a hypothesis. The other way in comes
a hypothesis with features, and out comes such a file. A circuit of features has no edges of its own, so that it is none
of the formats of heads and MLPs beside this folder.
"""
