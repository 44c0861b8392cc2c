"""Frozen language models whose predictions look at images late (vLMIG, LaMI)."""
