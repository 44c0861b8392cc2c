"""Files of facts: each is read by its type, and a damaged one is named."""

import re

import pytest

from lavis.common.errors import ConfigError
from lavis.llm import tables
from lavis.llm.tables import Words, any_of, expand, load_table


def test_alternatives_may_be_written_in_parts():
    assert any_of(["a", ["b(c", "|d)"]]) == "a|b(c|d)"
    assert re.fullmatch(expand("%(one)s%(two)s!", {"one": "a|b", "two": "c"}), "bc!")


@pytest.mark.parametrize(
    ("content", "message"),
    [("stop: [a]", "stop"), ("a: {", "table.yaml"), ("- stop", "valid dictionary")],
)
def test_a_damaged_file_is_named(tmp_path, monkeypatch, content, message):
    (tmp_path / "llm").mkdir()
    monkeypatch.setattr(tables, "CONFIG_ROOT", tmp_path)
    load_table.cache_clear()
    with pytest.raises(ConfigError, match=r"table.yaml"):
        load_table("table", dict[str, Words])
    (tmp_path / "llm/table.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_table("table", dict[str, Words])
    (tmp_path / "llm/table.yaml").write_text("stop: stop eos")
    assert load_table("table", dict[str, Words]) == {"stop": {"stop", "eos"}}
    load_table.cache_clear()
