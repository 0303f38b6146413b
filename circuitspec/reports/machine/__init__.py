"""Formats that programs read: JSON, JUnit, GitHub annotations, Markdown, badges, tables.

In come views; out come documents that programs read. Files are whole or not there.
"""
