"""BLIP-2: frozen vision tower and trained Q-Former."""
