"""Text to pictures."""
