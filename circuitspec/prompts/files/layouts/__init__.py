"""The layouts in which others have written their prompts: a row of theirs becomes entries.

In comes a row of a file, out come prompts as `prompts.files.prompt_entry` has them. A layout says by which columns it
is recognised and how one row is read; `all_layouts` lists them. What a row cannot give is said, and never guessed.
"""
