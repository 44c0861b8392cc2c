"""YAML files and `--options` become containers, and what is wrong with their text is told."""

import pytest
from omegaconf import OmegaConf

from lavis.common.config.errors import Faults
from lavis.common.config.files import contains, merge_options, parse_options, read_yaml, resolve
from lavis.common.errors import ConfigError


def test_options_win_over_the_file_and_are_typed_as_yaml():
    faults = Faults()
    file = OmegaConf.create({"run": {"seed": 1, "name": "a"}})
    given, merged = merge_options(file, ["run.seed=2", "run.splits=[x,y]"], faults)
    assert not faults
    assert given == {"run": {"seed": 2, "splits": ["x", "y"]}}
    assert merged == {"run": {"seed": 2, "name": "a", "splits": ["x", "y"]}}
    assert file == {"run": {"seed": 1, "name": "a"}}
    assert parse_options(["run.seed", "3"]) == {"run": {"seed": 3}}  # LAVIS's other form


@pytest.mark.parametrize(
    "item, message",
    [
        ("=1", "'=1' has no key; write key=value"),
        ("run.seed=", "'run.seed=' has no value; write run.seed=null to have none"),
    ],
)
def test_an_option_that_cannot_be_read_is_named(item, message):
    with pytest.raises(ConfigError) as error:
        parse_options([item])
    assert message in str(error.value)


def test_a_part_of_a_list_is_not_set():
    file = OmegaConf.create({"run": {"splits": ["x"]}})
    faults = Faults()
    merge_options(file, ["run.splits.0=y"], faults)
    with pytest.raises(ConfigError, match=r"'run\.splits\.0=y': part of a list cannot be set"):
        faults.check()


def test_a_value_that_refers_to_nothing_is_left_out_and_told():
    tree = OmegaConf.create({"run": {"a": "${run.b}", "c": "${run.d}", "d": 4, "e": [1]}})
    container, faults = resolve(tree, lambda key: "run.yaml")
    assert container == {"run": {"c": 4, "d": 4, "e": [1]}}
    (fault,) = faults
    assert fault.line.startswith("run.yaml, run.a: cannot resolve '${run.b}'")


def test_a_key_is_there_though_its_value_refers_to_nothing():
    tree = OmegaConf.create({"run": {"a": "${none}"}})
    assert contains(tree, "run.a") and not contains(tree, "run.a.b") and not contains(tree, "b")


def test_a_mapping_is_read_and_anything_else_refused(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("run: {seed: 1}")
    assert read_yaml(path) == {"run": {"seed": 1}}
    for text, message in (
        ("- 1", "a mapping was expected"),
        ("run: [", "not valid YAML"),
        ("run: {a: 1}\nmodel: {}\nrun: {}", "run: given twice, in lines 1 and 3; keep one"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_yaml(path)
    with pytest.raises(ConfigError, match="no such config file"):
        read_yaml(tmp_path / "none.yaml")
