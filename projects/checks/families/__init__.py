"""Tiny models of all families that transformers maps, and what is asked of them."""
