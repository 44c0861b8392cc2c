"""Text to images."""
