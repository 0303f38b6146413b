"""Formats that programs read: JSON, JUnit, GitHub annotations, Markdown, badges, tables.

In come views; out come files that are whole or not there.
"""
