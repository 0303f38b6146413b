"""What each block of the file may say, as pydantic models.

In comes plain data; out comes a frozen `Hypothesis`. The JSON Schema and the reference in `docs/dsl.md` are made from
the same models.
"""
