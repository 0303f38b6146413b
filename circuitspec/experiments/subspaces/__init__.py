"""Linear subspaces along which components are patched: as values, and as files beside a hypothesis.

In comes a safetensors file that an alignment names; out comes an orthonormal basis whose site was checked. Of values
that unpatched runs have, `subspace_parts` makes bases to compare with, and `natural_states` says how far patched ones
are from them.
"""
