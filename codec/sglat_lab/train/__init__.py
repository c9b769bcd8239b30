"""Training of the embedded bundle."""
