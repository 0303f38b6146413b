"""How a circuit becomes experiments at node, edge and path level.

In come components, edges or paths that are kept or ablated; out come experiments that say so, and the runs about the
whole circuit. Beside them stands what a level asks of prompts and sources: tokens that correspond, whole patterns.
"""
