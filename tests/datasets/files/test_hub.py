"""A table that cannot be fetched says where to put local files."""

import pytest

from lavis.common.errors import ConfigError, DataError
from lavis.datasets.files import hub


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ImportError(), ConfigError, "the package datasets is missing; install it, or put a.txt"),
        (OSError("no network"), DataError, r"cannot be fetched \(no network\); put a.txt into"),
    ],
)
def test_what_cannot_be_fetched_is_told_with_a_way_out(monkeypatch, error, kind, message):
    def refuse(name, config, split):
        raise error

    monkeypatch.setattr(hub, "load_table", refuse)
    with pytest.raises(kind, match=message):
        hub.hub_files("x/y", None, "train", section="wiki", local="a.txt")


def test_files_are_those_that_the_package_keeps(monkeypatch):
    class Table:
        cache_files = ({"filename": "a.arrow"}, {"filename": "b.arrow"})

    monkeypatch.setattr(hub, "load_table", lambda *names: Table())
    files = hub.hub_files("x/y", None, "train", section="wiki", local="a.txt")
    assert files == ["a.arrow", "b.arrow"]
