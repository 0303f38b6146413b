"""What every stage may use: how far the work is, files written whole, text shown safely.

In come words, paths and contents; out come lines for people and files that are whole. Nothing here knows of circuits;
nothing else of the package is imported.
"""
