"""Circuits held against each other."""
