"""Records become estimates, verdicts and warnings.

In come the plan and what was measured; out comes a `Verification`, of which reports are functions. What must be run
besides is asked of a runner that is passed in: nothing here imports torch.
"""
