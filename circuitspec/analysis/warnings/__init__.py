"""The known ways in which such evidence misleads, each with the measured numbers and a remedy.

In come plan, records and claims; out come warnings. A warning says what to do.
"""
