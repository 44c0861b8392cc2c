"""Run files of scripts: each section is checked against its own class."""

import pytest
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass

from lavis.common.config.fields import STRICT
from lavis.common.config.sections import load_sections
from lavis.common.errors import ConfigError


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Draw:
    """A section."""

    count: PositiveInt = 3
    name: str = "a"


def load(tmp_path, text, options=()):
    (tmp_path / "run.yaml").write_text(text)
    return load_sections(tmp_path / "run.yaml", list(options), {"draw": Draw, "other": Draw})


def test_sections_are_checked_and_absent_ones_are_their_defaults(tmp_path):
    config = load(tmp_path, "draw: {count: 5, name: '${draw.count}'}", ["draw.name=b"])
    assert config["draw"] == Draw(count=5, name="b") and config["other"] == Draw()
    assert config.tree == {"draw": {"count": 5, "name": "b"}}
    assert config.to_yaml() == "draw:\n  count: 5\n  name: b\n"


def test_every_fault_is_told_with_its_source(tmp_path):
    with pytest.raises(ConfigError) as error:
        load(tmp_path, "drow: {}\ndraw: {count: 0}", ["other.nam=x"])
    assert str(error.value).split("\n") == [
        "run.yaml, drow: unknown section; did you mean 'draw'?",
        "--options, other.nam: unknown key; did you mean 'name'?",
        "run.yaml, draw.count: 0 found, expected greater than 0",
    ]
