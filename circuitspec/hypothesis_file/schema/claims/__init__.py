"""What claims may say: a module for each kind, listed in `registry`.

In comes a mapping of the file, out comes a frozen value with what the claim says and what it names.
Nothing here knows how a claim is run or judged: `analysis.claims` does.
"""
