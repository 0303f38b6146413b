"""What no module computes, worked out of what modules do: attention patterns, single experts, what routers choose; and
logits, where these are computed after a forward.

In come values and patches of such taps; out come edits, and other forwards of modules, for one forward of the model.
"""
