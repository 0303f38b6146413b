"""What `import circuitspec` offers beside verifying: one patch, a sweep, a path, recorded values, of a model in memory.

In come a model, its tokenizer, prompts in any form and names of components; out come tables and arrays. The experiments
are those of the commands, run and tested by the same session. What `doctor` says of dictionaries is measured here too.
"""
