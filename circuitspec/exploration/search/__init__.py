"""The searches of an exploration: components, circuits, paths, cross-sections, gates.

In come estimates and a way to run experiments; out come components with their measured effects. Each search stops
where the allowance of forwards ends, and says what it did not look at.
"""
