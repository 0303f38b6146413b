"""How far a search's circuit depends on the prompts that it was chosen on: the search repeated on parts of them.

In come what a search measured, prompt by prompt, and what it was asked for. The same search is made on each of many
subsamples; what no search has measured yet is run for all of them together. And out comes how often each component at a
position and each edge was chosen, and what circuits of the often chosen ones recover on prompts that were held out.
"""
