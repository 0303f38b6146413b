"""What a supported family looks like: its modules, what can be patched in it, its rotary embeddings.

In comes a config; out come the names of modules, and tensors at which components are read and patched. A family is
one entry (an `Architecture`) in the module of its layout; `family_table.py` puts them together.
"""
