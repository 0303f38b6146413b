"""Edge and path level: receivers that read another residual stream than the model's.

In come senders, receivers and their values; out come edits at the taps where receivers compute. Each receiver has its
own norm.
"""
