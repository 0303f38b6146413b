"""The one grammar of names: components, positions, paths, slots, metrics inside the model.

In come the short texts of a hypothesis file; out come frozen values, and the canonical spelling of each. Every name
is parsed and written here.
"""
