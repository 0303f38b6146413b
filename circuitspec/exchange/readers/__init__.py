"""One module for each format of another tool.

In come bytes that nobody vouches for; out come edges with scores. Nothing in a file is ever run.
"""
