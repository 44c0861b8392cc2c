"""The catalogue of options equals what is registered and what shipped run files say."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass

from launching import main_of
from lavis.common import cli, registry
from lavis.common.config import catalogue as book
from lavis.common.config.fields import STRICT, Fraction
from lavis.common.config.loading import RETIRED
from lavis.common.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def options():
    """Return the options as they are now: plug-ins of other tests may have joined."""
    return book.options()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Inner:
    """An inner section.

    Attributes:
        share: of the whole,
            in two lines.
    """

    share: Fraction = 0.5


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Outer:
    """A section.

    Attributes:
        a, b: two at once.
    """

    a: PositiveInt
    b: Literal["x", "y"] | None = None
    # Above it,
    # in two lines.
    c: list[str] = Field(default_factory=lambda: ["z"])
    d: Annotated[int, Field(ge=2)] = 3  # behind it
    inner: Inner = Inner()
    many: dict[str, Inner] | None = None


def test_a_dataclass_becomes_options():
    options = {option.key: option for option in book.options_of(Outer, "run", "me")}
    told = {
        key: (each.type, each.default, each.choices, each.meaning) for key, each in options.items()
    }
    share = ("float, at least 0 and at most 1", 0.5, (), "of the whole, in two lines.")
    assert told == {
        "run.a": ("int, above 0", "required", (), "two at once."),
        "run.b": ('"x" | "y" or null', None, ("x", "y"), "two at once."),
        "run.c": ("list of str", ["z"], (), "Above it, in two lines."),
        "run.d": ("int, at least 2", 3, (), "behind it"),
        "run.inner": ("section", {}, (), "An inner section."),
        "run.inner.share": share,
        "run.many": ("mapping of section or null", None, (), "An inner section."),
        "run.many.*.share": share,
    }
    assert {each.of for each in options.values()} == {"me"}
    assert options["run.inner.share"].home == f"{__name__}:Inner"


def test_it_holds_every_registered_name_and_every_field_of_its_class(options):
    keys = {(option.of, option.key) for option in book.options()}
    names = book.catalogue()["names"]
    for each in vars(registry).values():
        if isinstance(each, registry.Registry):
            assert names[each.kind] == each.list()
    for kind, place in book.PLACES.items():
        for name in names[kind]:
            prefix = f"datasets.{name}" if kind == "dataset" else place
            for field in dataclasses.fields(book.KINDS[kind].config_class(name)):
                assert (name, f"{prefix}.{field.name}") in keys


def test_every_option_has_a_meaning_and_a_home(options):
    assert not {f"{each.home} {each.key}" for each in options if not each.meaning}
    homes = ("lavis.", "projects.")  # the latter of plug-ins that other tests import
    assert all(each.home.startswith(homes) for each in options)


def leaves(tree, prefix=""):
    """Yield the keys of a run file."""
    for name, value in tree.items():
        key = f"{prefix}.{name}" if prefix else str(name)
        yield key
        if isinstance(value, dict):
            yield from leaves(value, key)


def test_every_key_of_a_shipped_run_file_is_in_it(options):
    free = {each.key for each in options if each.type.startswith(("mapping", "any"))}
    known = {each.key for each in options} | set(RETIRED)
    tried = 0
    for path in ROOT.glob("lavis/projects/**/*.yaml"):
        tree = yaml.safe_load(path.read_text())
        if "run" not in tree or "import_modules" in tree["run"]:  # which may bring more keys
            continue
        for key in leaves(tree):
            if key.count(".") < 2 and key.startswith(("datasets", "stages")):
                continue  # a section, or a name of one's own
            parents = [key.rsplit(".", n)[0] for n in range(1, key.count(".") + 1)]
            is_free = any(
                book.matches(each, up)
                for up in parents
                for each in free
                if each.count(".") == up.count(".")
            )
            assert is_free or any(book.matches(each, key) for each in known), (path, key)
            tried += 1
    assert tried > 500


def test_a_key_is_explained():
    assert book.explain("run.batch_size_eval") == (
        "run.batch_size_eval: int, above 0; default 32\n"
        "    texts per work unit; part of the plan, so never scaled by world size.\n"
        "    read by: every run (lavis.common.config.run:RunConfig)"
    )
    seed = book.explain("run.images.seed")  # one text for the two tasks that have it
    assert "read by: visual_language_modeling, visual_questions" in seed and seed.count("\n") == 2
    assert "datasets.wiki.block_size: int, above 0; default 447" in book.explain("datasets.wiki")
    assert '"ids" | "descriptions"' in book.explain("generate.prompts.style")
    assert "stages.*.samples: int, above 0; default 3" in book.explain("stages.mine.samples")
    assert "run.task: comparison | " in book.explain("run.task")
    assert "generator: diffusion, " in book.explain("help")
    assert book.explain("run.world_size") == (
        "run.world_size: nothing reads it; the launcher sets it"
    )


@pytest.mark.parametrize(
    "key, near",
    [
        ("run.batchsize_eval", "did you mean 'run.batch_size_eval' or"),
        ("model.block_size", "did you mean 'datasets.wiki.block_size'?"),
    ],
)
def test_an_unknown_key_gives_near_ones(key, near):
    with pytest.raises(ConfigError, match=f"--explain: unknown key '{key}'; {near}"):
        book.explain(key)


def test_the_script_lists_what_a_module_registers(capsys):
    describe = main_of("scripts/describe.py")
    assert describe(["run.images.options", "--import-modules", "projects.quickstart"]) == 0
    assert "read by: openmoji (projects.quickstart.config:" in capsys.readouterr().out
    assert describe(["--import-modules", "no.such"]) == 2
    assert "--import-modules: cannot import no.such" in capsys.readouterr().err


def test_the_front_ends_explain_without_a_run_file(capsys):
    assert cli.run_front_end("", "train", ["--explain", "run.seed"]) == 0
    assert capsys.readouterr().out.startswith("run.seed: int, at least 0 and below")
    assert cli.run_front_end("", "evaluate", ["--explain", "run.sed"]) == 2
    assert "did you mean 'run.seed'" in capsys.readouterr().err


def test_the_whole_is_json(options):
    whole = json.loads(json.dumps(book.catalogue()))
    assert whole["types"]["model"]["late_fusion"]["default"] == "models/late_fusion/default.yaml"
    assert whole["commands"]["verbalize"] == ["images", "stages", "run"]
    assert set(book.command_sections("generate_qar")) == {"llm", "generate", "run"}
    assert len(whole["options"]) == len(book.options())
