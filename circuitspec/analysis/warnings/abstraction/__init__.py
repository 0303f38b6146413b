"""Warnings about subspaces that variables are aligned with, and about circuits that are scrubbed."""
