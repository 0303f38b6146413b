"""Warnings about the task itself: whether the model does it, its answers, its prompts' lengths.

In comes the evidence of a run; out come warnings that the task's part of the file mends.
"""
