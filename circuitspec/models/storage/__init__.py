"""Where model files lie: the hub's cache, weight files, directories that are made once.

In come names of files and repositories; out come complete local files, or an error that says what is missing. Nothing
is written but whole files.
"""
