"""Analysis by synthesis: the stages from a video to a file, in the order of `encode.py`."""
