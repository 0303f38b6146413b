"""The text of a hypothesis file becomes a checked value, or diagnostics with places.

In comes YAML; out comes a `Document`: the `Hypothesis` and where in the text each of its values stands. No model, no
prompts and no torch are needed.
"""
