"""Files verified as a repository does it: held against their locks, and many of them together.

In come documents and, where there are any, their locks; out come outcomes, with how they differ from what was locked.
Each model is loaded once.
"""
