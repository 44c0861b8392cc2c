"""Regions of an image in one frame, and how vision-language models are told and tell of them."""
