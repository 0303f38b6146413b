"""Results as text, page, figure, table and machine format.

In comes a `Verification`, or a result that was saved; out comes text. Every format is a function of the plain values
in `views.py`.
"""
