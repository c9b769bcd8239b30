"""What one clip or picture scores."""
