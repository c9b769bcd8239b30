"""Video and audio in and out.

A stream or picture that cannot be read, decoded, encoded or written raises MediaError; functions
list other errors only.
"""
