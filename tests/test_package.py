"""The import name has one owner."""

import importlib
from importlib import metadata

import pytest

import lavis


def test_importing_beside_salesforce_lavis_says_what_to_uninstall(monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: "1.0.2")
    with pytest.raises(ImportError, match=r"1\.0\.2 is .* uninstall salesforce-lavis"):
        importlib.reload(lavis)
