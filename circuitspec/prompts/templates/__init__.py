"""Prompts drawn from templates and lists, or made by a generator.

In come templates with slots and a seed; out come clean and corrupted texts with their answers, and where each slot
stands. Prompt i depends on the seed and on i.
"""
