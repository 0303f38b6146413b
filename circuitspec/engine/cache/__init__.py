"""Measured values that outlive their run.

In come keys of what values depend on; out come values that were measured before. The store only appends.
"""
