"""What every stage may use: how far the work is, files written whole, text shown safely.

Nothing here knows of circuits; nothing else of the package is imported.
"""
