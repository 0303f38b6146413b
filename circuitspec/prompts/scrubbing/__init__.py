"""Prompts for causal scrubbing: drawn anew for each of the task's, to agree with a reference on what is named.

In comes what is to be drawn (`DrawnPrompts`) and the task; out come variants of the tokenized task. What a prompt may
differ in is drawn afresh (slots), tried until it agrees (variables), or taken from other rows (prompts of a file).
"""
