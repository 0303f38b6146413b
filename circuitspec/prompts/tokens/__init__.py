"""Texts become token ids, aligned between clean and corrupted prompts.

In come texts and a tokenizer; out come ids, the token positions of every role, and answers as single tokens. Misfits
are errors that name prompt, slot and tokens.
"""
