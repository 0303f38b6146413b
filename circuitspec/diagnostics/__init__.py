"""What can be wrong, said so that a person can mend it.

In come a code, a message and a place in a file; out comes a diagnostic with the line shown and what to write instead.
The table of codes, by their hundreds, with the explanation that `circuitspec explain` prints, stands here too, and
nothing else of the package is imported.
"""
