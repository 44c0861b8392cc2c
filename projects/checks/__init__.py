"""Checks of the whole: published figures, language-model families, speed, lowest versions."""
