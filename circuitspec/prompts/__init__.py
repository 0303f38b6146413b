"""The `task:` block becomes prompts, tokens, positions and answers.

In come templates, a prompts file or a generator; out comes a `PromptSet` and, with a tokenizer, a `TokenizedTask`.
Metrics of the model's output are defined here, because answers are.
"""
