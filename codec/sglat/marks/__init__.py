"""Marks of generated media: signed provenance, invisible watermark, tags, and their check."""
