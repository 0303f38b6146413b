"""A plan as plain pyvene: configuration, unit locations and a runner.

In come experiments; out come files that run without this package.
"""
