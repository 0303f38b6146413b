"""What a model is: its family's architecture, its shape, its weights and its tokenizer.

In comes the `model:` block; out comes a `LoadedModel` that is exactly what the block says, or an error. A family is
one entry in `families/`.
"""
