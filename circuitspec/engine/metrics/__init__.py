"""Metrics that need more than the last logits: of activations and attention, and shares of answers.

In come a batch and recordings; out come values per prompt.
"""
