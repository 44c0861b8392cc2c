"""Everything that a run file may say, from the registry and the dataclasses that check it."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic.fields import FieldInfo

from lavis.common import registry
from lavis.common.config.loading import RETIRED
from lavis.common.config.renamed import RENAMED, present_key
from lavis.common.config.run import RunConfig
from lavis.common.errors import ConfigError, nearest

# Where the options of registered things stand in a run file; `*` is a name of one's own.
PLACES = {
    "model": "model",
    "dataset": "datasets.*",
    "task": "run",
    "generator": "run.images.options",
    "language-model backend": "llm",
    "verbalizer": "stages.*",
}
KINDS = {each.kind: each for each in vars(registry).values() if isinstance(each, registry.Registry)}
# Sections of the run files of scripts, and the types that check them.
COMMANDS = {
    "generate_qar": {
        "llm": "lavis.llm.config:LlmSettings",
        "generate": "lavis.tasks.knowledge.config:GenerateConfig",
        "run": "lavis.tasks.knowledge.config:GenerationRunConfig",
    },
    "verbalize": {
        "images": "lavis.datasets.lck.scenes:ScenesConfig",
        "stages": "lavis.tasks.knowledge.config:Stages",
        "run": "lavis.tasks.knowledge.config:VerbalizeRunConfig",
    },
}
REQUIRED = "required"
# Fields that hold a registered name.
_NAMES = {
    "arch": registry.models,
    "task": registry.tasks,
    "runner": registry.runners,
    "lr_sched": registry.lr_schedulers,
    "generator": registry.generators,
    "scorer": registry.scorers,
    "backend": registry.llms,
}
# Fields that mean the same wherever they stand.
_ALIKE = {
    "arch": "registered name of the model.",
    "backend": "registered name of what answers requests.",
    "batch_size": "how many are computed at a time.",
    "device": "`auto` is CUDA where there is any.",
    "dtype": "of the weights.",
    "model": "Hugging Face id or folder.",
    "model_type": "which default YAML of the arch the section starts from.",
    "revision": "commit or tag of the model on the hub.",
    "seed": "of every random choice.",
}


@dataclass(frozen=True)
class Option:
    """One key of a run file.

    Attributes:
        key: full dotted key; `*` stands for a user's own name, `[]` for each item of a list.
        of: the registered name or the command that has it; empty where every run has it.
        type: in words.
        default: JSON-able; `REQUIRED` where there is none.
        choices: the values it takes, where they are a few words.
        meaning: of the dataclass's docstring, or of the comment at the field.
        home: `module:Class` that checks it.
    """

    key: str
    of: str
    type: str
    default: Any
    choices: tuple[Any, ...]
    meaning: str
    home: str


def command_sections(command: str) -> dict[str, Any]:
    """Return section -> type that checks it, for the run files of a script."""
    return {name: registry.load(path) for name, path in COMMANDS[command].items()}


def catalogue() -> dict[str, Any]:
    """Return registered names, default YAMLs, options and former keys as plain containers."""
    return {
        "names": {kind: each.list() for kind, each in KINDS.items()},
        "types": {
            kind: {name: dict(each.defaults(name)) for name in each.list()}
            for kind, each in KINDS.items()
            if kind in ("model", "dataset")
        },
        "commands": {name: list(sections) for name, sections in COMMANDS.items()},
        "options": [dataclasses.asdict(option) for option in options()],
        "retired": RETIRED,
        "renamed": RENAMED,
    }


def options() -> list[Option]:
    """Return every option of `train.py`, `evaluate.py` and the scripts with run files."""
    known = list(options_of(RunConfig, "run", ""))
    for kind, place in PLACES.items():
        for name in KINDS[kind].list():
            where = f"datasets.{name}" if kind == "dataset" else place
            known += options_of(KINDS[kind].config_class(name), where, name)
    for command in COMMANDS:
        for section, cls in command_sections(command).items():
            known += options_of(cls, section, command)
    return known


def explain(key: str) -> str:
    """Return what a key is, what the keys of a section are, or for `help` what there is.

    Example:
        >>> print(explain("run.batch_size_eval"))
        run.batch_size_eval: int, above 0; default 32
            texts per work unit; ...

    Raises:
        ConfigError: there is no such key; the message names near ones.
    """
    if key == "help":
        return _contents()
    known = options()
    named = [option for option in known if matches(option.key, key)]
    if named:
        return "\n".join(_paragraphs(named))
    if present_key(key) != key:
        return f"{key}: called {present_key(key)} now"
    if key in RETIRED:
        return f"{key}: nothing reads it; {RETIRED[key]}"
    raise ConfigError(f"--explain: unknown key '{key}'{_near(key, {each.key for each in known})}")


def _contents() -> str:
    sections = dict.fromkeys(f"{option.key.split('.')[0]}" for option in options())
    lines = [f"sections: {', '.join(sections)}", ""]
    lines += [f"{kind}: {', '.join(each.list())}" for kind, each in KINDS.items()]
    return "\n".join([*lines, "", "--explain a section, or a key such as run.batch_size_eval"])


def matches(key: str, wanted: str) -> bool:
    """Return whether a key is the requested one, or of the requested section."""
    parts, names = key.split("."), wanted.split(".")
    pairs = zip(parts, names, strict=False)
    return len(parts) >= len(names) and all(p in ("*", a, f"{a}[]") for p, a in pairs)


def _near(key: str, keys: set[str]) -> str:
    """Return a hint of keys that end in the same name, else of near ones."""
    ends = sorted(known for known in keys if known.split(".")[-1] == key.split(".")[-1])
    if ends:
        return f"; did you mean {' or '.join(repr(end) for end in ends[:3])}?"
    sections = {known.rpartition(".")[0] for known in keys}
    return nearest(key, {*keys, *sections})


def _paragraphs(named: Iterable[Option]) -> Iterator[str]:
    """Yield lines on options of one key; those that differ in their owner only appear once."""
    alike: dict[str, list[Option]] = {}
    for option in named:
        alike.setdefault(str(dataclasses.replace(option, of="")), []).append(option)
    for option, *others in alike.values():
        yield f"{option.key}: {_kind(option)}"
        yield textwrap.indent(textwrap.fill(option.meaning, 90), "    ")
        owners = ", ".join(each.of for each in (option, *others)) or "every run"
        yield f"    read by: {owners} ({option.home})"


def _kind(option: Option) -> str:
    if option.default == REQUIRED:
        return f"{option.type}; {REQUIRED}"
    return f"{option.type}; default {json.dumps(option.default)}"


def options_of(cls: Any, prefix: str, of: str) -> Iterator[Option]:
    """Yield the fields of a dataclass, and of those that its fields hold."""
    if not isinstance(cls, type) or not dataclasses.is_dataclass(cls):
        return
    hints = typing.get_type_hints(cls, include_extras=True)
    meanings = _meanings(cls)
    for field in dataclasses.fields(cls):
        key, hint = f"{prefix}.{field.name}", hints[field.name]
        text, choices = _type(hint)
        if text.startswith("str") and field.name in _NAMES:
            choices = tuple(_NAMES[field.name].list())
            text = " | ".join(choices)
        inside = list(_inner(hint))
        parts = [_first_sentence(inner) for inner, _ in inside]
        home = next(c for c in cls.__mro__ if field.name in inspect.get_annotations(c))
        yield Option(
            key=key,
            of=of,
            type=text,
            default=_default(field),
            choices=choices,
            meaning=meanings.get(field.name) or " ".join(parts) or _ALIKE.get(field.name, ""),
            home=f"{home.__module__}:{home.__qualname__}",
        )
        for inner, end in inside:
            yield from options_of(inner, key + end, of)


def _inner(hint: Any, end: str = "") -> Iterator[tuple[type, str]]:
    """Yield dataclasses inside a type, with what follows the key there."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        yield hint, end  # type: ignore[misc]
    elif origin in (typing.Union, types.UnionType):
        for arg in args:
            yield from _inner(arg, end)
    elif origin is dict:
        yield from _inner(args[1], f"{end}.*")
    elif origin in (list, tuple):
        yield from _inner(args[0], f"{end}[]")
    elif origin is typing.Annotated:
        yield from _inner(args[0], end)


def _default(field: dataclasses.Field[Any]) -> Any:
    value: Any = field.default
    if isinstance(value, FieldInfo):
        value = REQUIRED if value.is_required() else value.get_default(call_default_factory=True)
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    elif value is dataclasses.MISSING:
        value = REQUIRED
    if dataclasses.is_dataclass(value):
        return {}  # its own keys are listed
    return json.loads(json.dumps(value))


def _type(hint: Any) -> tuple[str, tuple[Any, ...]]:
    """Return a type in words, and its values where it has few."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        text, choices = _type(args[0])
        return text + _bounds(args[1:]), choices
    if origin is Literal:
        return " | ".join(json.dumps(arg) for arg in args), args
    if origin in (typing.Union, types.UnionType):
        members = [_type(arg) for arg in args]
        texts = dict.fromkeys(text for text, _ in members)
        return " or ".join(texts), tuple(c for _, choices in members for c in choices)
    if origin in (list, tuple, dict):
        item = args[1] if origin is dict else args[0]
        return f"{'mapping' if origin is dict else 'list'} of {_type(item)[0]}", ()
    if dataclasses.is_dataclass(hint):
        return "section", ()
    names = {type(None): "null", Any: "any", list: "list", dict: "mapping"}
    return names.get(hint) or str(getattr(hint, "__name__", hint)), ()


def _bounds(metadata: Iterable[Any]) -> str:
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    parts = [part for each in metadata for part in getattr(each, "metadata", None) or [each]]
    bounds = [
        f"{word} {getattr(part, name):g}"
        for part in parts
        for name, word in words.items()
        if getattr(part, name, None) is not None
    ]
    return f", {' and '.join(bounds)}" if bounds else ""


def _meanings(cls: type) -> dict[str, str]:
    """Return field -> meaning, of `Attributes:` and of comments, those of bases included."""
    meanings: dict[str, str] = {}
    for each in reversed(cls.__mro__):
        if dataclasses.is_dataclass(each):
            meanings |= _of_comments(each) | _of_docstring(each.__doc__ or "")
    return meanings


def _first_sentence(cls: type) -> str:
    return " ".join((cls.__doc__ or "").split("\n\n")[0].split())


def _of_docstring(text: str) -> dict[str, str]:
    block = re.search(r"^Attributes:\n((?:[ \t]+.*\n|\n)*)", inspect.cleandoc(text) + "\n", re.M)
    entries = re.findall(r"^    (\w[\w, ]*): (.*(?:\n     +.*)*)", block[1] if block else "", re.M)
    return {
        name.strip(): " ".join(meaning.split())
        for names, meaning in entries
        for name in names.split(",")
    }


def _of_comments(cls: type) -> dict[str, str]:
    """Return the comments at a field's line, or in the lines above it."""
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):
        return {}
    comments: dict[str, str] = {}
    above: list[str] = []
    name = ""
    for line in re.split(r"^    (?:def|@)", source, maxsplit=1, flags=re.M)[0].split("\n"):
        code, _, text = line.partition("# ")
        if text and not code.strip():
            above.append(text)
            continue
        if match := re.match(r"    (\w+): ", line):
            name = match[1]
        comment = text or (" ".join(above) if match else "")
        if name and comment:
            comments[name] = comment
        above = []
    return comments
