"""Frozen language models whose predictions look at pictures late (vLMIG, LaMI)."""
