"""Values that real files hold and parsers refuse, and a way to put them anywhere into a record."""

import copy
import json

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

LONG = "@a number of 5000 digits@"  # what `as_json` writes as one; `int` refuses it, JSON does not

# Of every test that draws `spoiled` values: the same values each time, and one folder for all.
ODD = settings(
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def nested(depth, make):
    value = make(1)
    for _ in range(depth):
        value = make(value)
    return value


ODD_VALUES = [
    *(None, True, False, 0, -1, 2.5, 10**18, 2**63, 10**400, -(10**400), LONG),
    *(1e308, float("inf"), float("-inf"), float("nan")),
    *("", " ", "--5", "-", "5" * 5000, "٣", "²", "\0", "a/../b", "/etc/passwd", "half \ud83d"),
    *([], {}, [None], [[]], [[None]], {"": None}, {"name": "--5"}, {"boxes": [[1, 2]]}),
    [10**400, float("inf"), float("nan"), -1],
    [float("inf"), 10**400, 1, 2],
    nested(60, lambda value: [value]),
    nested(60, lambda value: {"a": value}),
    nested(400, lambda value: [value]),
]


def places(value, path=()):
    """Yield the path of every value inside a value."""
    pairs = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = enumerate(value)
    for key, inner in pairs:
        yield (*path, key)
        yield from places(inner, (*path, key))


@st.composite
def spoiled(draw, value):
    """A copy of a JSON value with one to three of its parts replaced by odd values, or gone."""
    found = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        paths = list(places(found))
        if not paths:
            return found
        *way, last = draw(st.sampled_from(paths))
        inside = found
        for key in way:
            inside = inside[key]
        if draw(st.integers(0, 9)) == 0:
            del inside[last]
        else:
            inside[last] = copy.deepcopy(draw(st.sampled_from(ODD_VALUES)))
    return found


def as_json(value):
    """Return the JSON text of a value; NaN and infinities as Python writes them."""
    return json.dumps(value).replace(json.dumps(LONG), "7" * 5000)


def write_lines(path, records):
    path.write_text("".join(as_json(record) + "\n" for record in records), encoding="utf-8")
    return path
