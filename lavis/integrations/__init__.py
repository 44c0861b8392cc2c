"""Adapters to other programs that run our models; nothing in `lavis` imports them."""
