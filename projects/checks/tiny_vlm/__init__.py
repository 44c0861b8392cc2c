"""Tiny random vision-language models of every family, as folders, for tests and checks."""
