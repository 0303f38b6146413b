"""How a circuit becomes experiments at node, edge and path level.

In come components, edges or paths that are kept or ablated; out come experiments that say so, and the runs about the
whole circuit.
"""
