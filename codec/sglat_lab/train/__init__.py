"""How the embedded bundle was made."""
