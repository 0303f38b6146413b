"""Where in a model a high-level variable is: one place after another takes its value in the source of a pair.

In come the pairs of an abstraction and a model's shape; out comes, for each place and family of pairs, how often the
model then answers as the high-level model asks for, with tables, pictures and a drafted entry of `align`.
"""
