"""Named sets of weights: catalogue, download, verify, convert, load."""
