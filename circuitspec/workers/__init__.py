"""Other processes that measure shards: on this machine, or wherever Ray has some.

In come shards; out comes what was measured of them, whatever process did it and in whatever order. Each process loads
the model once, computes with a fixed number of threads, and must have the model and the code of the one that asks.
"""
