"""Experiments that follow from a plan: restorations, declared paths, what is out of a circuit's reach.

In comes a `Plan`; out come further experiments about the same circuit.
"""
