"""What a file may say of a high-level causal model, and the claims that are about one.

In comes the mapping at `abstraction`, or a claim's settings; out come frozen values with texts in canonical spelling.
"""
