"""Runs of other circuits than the declared one: subsets, random circuits, other methods.

In comes the declared circuit; out come experiments on circuits made from it, with what each is for. What is drawn
depends on a seed alone.
"""
