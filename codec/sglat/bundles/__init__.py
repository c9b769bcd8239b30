"""Named sets of weights: found, downloaded, verified, converted and loaded.

What is missing, damaged, unknown or does not fit raises BundleError, whose message names the file
or part, what was expected and what was found; functions list other errors only.
"""
