"""From a model and a task to a drafted hypothesis: the exploratory half of the method (Heimersheim and Nanda 2024).

In come a file without a circuit and an allowance of forwards; out come findings and drafts that `verify` accepts.
Estimates narrow the search, exact patching decides.
"""
