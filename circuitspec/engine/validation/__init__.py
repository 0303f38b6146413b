"""Whether patching is exact on the model at hand.

In comes a loaded model; out come the largest deviations of runs whose result is known, or an error that names the
site. What few runs patch (attention patterns) is tested before the first of them.
"""
