"""Which values replace ablated ones: another run's, means, zeros, noise.

In come a source and a batch; out come tensors that broadcast to `[row, pos, channel]`.
"""
