"""The commands as functions, one module each: the stages in order, and nothing else.

In come a document and options; out comes the command's result. Stages themselves are in the packages below.
"""
