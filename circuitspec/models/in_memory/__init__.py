"""Models that a caller has loaded: hooks, bridges, and what of the process would change their numbers.

In comes an object; out comes the Hugging Face model that it is, what was set aside, or one error before any work.
"""
