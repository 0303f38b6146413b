"""Numbers with their intervals: means, ratios of means, paired tests.

In come values per prompt; out come estimates. All functions are deterministic.
"""
