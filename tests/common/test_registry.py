"""Names are found, refused with a near match, and never silently replaced."""

import pathlib
import sys

import pytest

from lavis.common import registry as registry_module
from lavis.common.errors import ConfigError
from lavis.common.registry import Registry, Target, import_module


def test_get_imports_the_target_when_it_is_used():
    registry = Registry("thing", {"fraction": Target("fractions:Fraction")})
    from fractions import Fraction

    assert registry.get("fraction") is Fraction


def test_unknown_name_lists_the_nearest():
    registry = Registry("thing", {"blip2_critic": Target("fractions:Fraction")})
    with pytest.raises(ConfigError, match="unknown thing 'blip2_citric'; did you mean 'blip2_cr"):
        registry.get("blip2_citric")


def test_registering_a_name_twice_raises():
    registry = Registry("thing", {"taken": Target("fractions:Fraction")})
    with pytest.raises(ConfigError, match="thing 'taken' is registered already, as fractions"):
        registry.register("taken")(type("Other", (), {}))
    registry.register("mine")(type("First", (), {}))
    with pytest.raises(ConfigError, match="'mine' is registered already"):
        registry.register("mine")(type("Second", (), {}))


def test_the_class_a_target_names_may_register_itself():
    from fractions import Fraction

    registry = Registry("thing", {"fraction": Target("fractions:Fraction")})
    assert registry.register("fraction")(Fraction) is Fraction
    assert registry.list() == ["fraction"]


def test_an_extension_stands_for_the_name_and_adds_types():
    registry = Registry("thing", {"path": Target("pathlib:PurePath", defaults={"default": "a"})})
    target = Target("pathlib:Path", "pathlib:PosixPath", {"other": "b"})
    for _ in range(2):  # a module may be imported again under another name
        registry.extend("path", target)
    assert registry.get("path") is pathlib.Path
    assert registry.config_class("path") is pathlib.PosixPath
    assert registry.defaults("path") == {"default": "a", "other": "b"}
    with pytest.raises(ConfigError, match="thing 'path' is extended already, by pathlib:Path"):
        registry.extend("path", Target("pathlib:WindowsPath"))
    registry.extend("paths", target)  # a name that was not there
    assert registry.list() == ["path", "paths"] and registry.get("paths") is pathlib.Path
    assert registry.defaults("paths") == {"other": "b"}


def test_a_plugins_name_is_asked_for_with_the_line_to_add():
    registry = Registry("thing", {}, {"toy": "things.toys"})
    sentence = r"^run\.yaml, x: thing 'toy' is registered by things\.toys; add run\.import_modules:"
    with pytest.raises(ConfigError, match=sentence + r" \[things\.toys\]"):
        registry.check("toy", "run.yaml, x")
    with pytest.raises(ConfigError, match="unknown thing 'toi'; did you mean 'toy'"):
        registry.get("toi")
    registry.extend("toy", Target("pathlib:Path"))
    assert registry.get("toy") is pathlib.Path


def test_a_module_beside_the_package_is_found_wherever_one_works(tmp_path, monkeypatch):
    root = str(pathlib.Path(registry_module.__file__).parents[2])
    monkeypatch.chdir(tmp_path)
    others = [p for p in sys.path if pathlib.Path(p or ".").resolve() != pathlib.Path(root)]
    monkeypatch.setattr(sys, "path", list(others))
    assert import_module("projects.quickstart", "x").__name__ == "projects.quickstart"
    assert sys.path == [*others, root]
    with pytest.raises(ConfigError, match=r"^where: cannot import no_such_module: No module named"):
        import_module("no_such_module", "where")
    (tmp_path / "half_written.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"^where: cannot import half_written: invalid syntax"):
        import_module("half_written", "where")


KINDS = [each for each in vars(registry_module).values() if isinstance(each, Registry)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_every_row_of_the_shipped_table_leads_to_its_class(kind):
    shipped = Registry(kind.kind)  # without what plug-ins have added since
    assert shipped.list()
    for name in shipped.list():
        assert shipped.get(name).__module__.startswith("lavis."), name
        for path in shipped.defaults(name).values():
            assert (registry_module.TABLE.parent / path).is_file(), path
