"""Candidates of one image, compared by their scores."""
