"""Comparisons that `scripts/check_golden.py` runs, a module for each part of a set."""
