"""A hypothesis laid over a model's components: no weights, no torch.

In come names and a model's shape; out come the components of the circuit and of the rest, edges, paths and cuts, each
with the positions at which it is meant. All is arithmetic on names.
"""
