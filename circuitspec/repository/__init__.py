"""Results that are kept beside a paper: locks, drift, differences.

In come a result and everything that it depends on; out come a lock file, and findings where a new run is not as the
lock says.
"""
