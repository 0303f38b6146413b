"""A slow, independent reference for patching experiments, written from the weights up.

Nothing here imports the package under test. Everything runs one prompt at a time in float64, without padding, batching,
caching or hooks (``hooked`` apart, which is a cross-check of the reference itself).
"""
