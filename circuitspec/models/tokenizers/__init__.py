"""Tokenizers as the model's own files describe them.

In comes a directory or the metadata of a GGUF file; out comes a fast tokenizer that cuts text as those files say, or
a finding that says where it does not.
"""
