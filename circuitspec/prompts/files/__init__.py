"""Prompts that are given in a file: JSON lines, CSV, auto-circuit's JSON.

In comes a file; out come the same prompts as templates would give. Rows that do not fit are errors that name the row.
"""
