"""Torch modules only: no files, no downloads."""
