"""What every stage may use: how far the work is, files written whole, text shown safely.

In come numbers of prompts, bytes and text from anywhere; out come lines for a terminal and files. Nothing here knows of
circuits; nothing else of the package is imported.
"""
