"""Tiny random vision-language models for tests: a folder for each family, skipped where absent."""

import pytest

from projects.checks.tiny_vlm.making import BUILDERS, make_vlm, why_absent
from projects.checks.tiny_vlm.parts import make_tokenizer

__all__ = ["BUILDERS", "make_tokenizer", "make_vlm", "skip_absent"]


def skip_absent(family):
    """Skip a test of a family that the installed transformers lacks, and say so."""
    reason = why_absent(family)
    if reason:
        pytest.skip(reason)
