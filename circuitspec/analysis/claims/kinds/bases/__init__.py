"""What kinds of claims have in common: those about the whole circuit, and those about one path."""
