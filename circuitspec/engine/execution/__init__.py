"""One forward: which tensors are read and replaced, and in batches of which size.

In come a batch and actions at taps; out come logits and recorded tensors. Every tap counts its firings.
"""
