"""Experiments become measured values: the only importer of pyvene.

In come a plan, a loaded model and a tokenized task; out come `Records`: every metric for every experiment and prompt.
Forwards are shared, batched to memory, tested before they are believed, and kept in a store.
"""
