"""The report as one page that needs nothing else, and fragments of it for notebooks.

In come views and figures; out comes HTML without script or network. Templates set what views say, and decide nothing.
"""
