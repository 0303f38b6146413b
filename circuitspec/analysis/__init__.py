"""Records become estimates, verdicts and warnings.

In come the plan and what was measured; out comes a `Verification`, of which reports are functions. Nothing here runs
a model.
"""
