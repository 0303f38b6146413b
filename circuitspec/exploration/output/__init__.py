"""What an exploration found, as text, tables, figures and a page.

In come findings; out come reports and tables. Nothing is run.
"""
