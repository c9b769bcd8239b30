"""Styles per frame, rendering, compositing."""
