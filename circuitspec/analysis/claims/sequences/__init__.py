"""Claims that are looked at while prompts come in.

In come records of the prompts so far and the numbers at which they were looked at; out come estimates whose intervals
hold at all looks at once, and how it went. What a fixed number of prompts would say is kept beside, and marked.
"""
