"""Every refusal of a parse becomes one `RecordError`; errors for users and own bugs pass."""

import decimal
import json
import struct
import zlib

import pytest

from lavis.common.errors import (
    ConfigError,
    DataError,
    RecordError,
    brief,
    finite,
    printable,
    record_errors,
)

REFUSED = {
    "5000 digits": lambda: int("7" * 5000),
    "infinity": lambda: int(float("inf")),
    "401 digits": lambda: float(10**400),
    "decimal": lambda: decimal.Decimal("x"),
    "deep": lambda: json.loads("[" * 100_000),
    "bytes": lambda: b"\xff".decode(),
    "surrogate": lambda: "\ud83d".encode(),
    "type": lambda: 1 + "",
    "attribute": lambda: (1).x,
    "index": lambda: [][0],
    "memory": lambda: bytearray(2**62),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_a_parser_raises_is_a_reason(name):
    with pytest.raises(RecordError, match=r"^odd: .+") as caught, record_errors("odd"):
        REFUSED[name]()
    assert len(caught.value.reason) < 200


def test_a_missing_key_is_named():
    with pytest.raises(RecordError, match=r"^missing field: image$"), record_errors("odd"):
        {}["image"]


@pytest.mark.parametrize("error", [ConfigError("c"), DataError("d"), RecordError("r")])
def test_errors_for_users_pass_as_they_are(error):
    with pytest.raises(type(error)) as caught, record_errors("odd"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("error", [AssertionError("bug"), OSError("disk"), KeyboardInterrupt()])
def test_own_bugs_and_the_system_are_no_fault_of_a_record(error):
    with pytest.raises(type(error)) as caught, record_errors("odd"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("error", [OSError("cut"), zlib.error("x"), struct.error("y"), EOFError()])
def test_decoders_refuse_in_more_ways(error):
    with pytest.raises(RecordError, match=r"^broken: "), record_errors("broken", decoding=True):
        raise error


def test_it_decorates_functions():
    @record_errors("odd")
    def number(text):
        return int(text)

    assert number("7") == 7
    for _ in range(2):
        with pytest.raises(RecordError, match=r"^odd: "):
            number("x")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain.jpg", "plain.jpg"),
        ("Füße 😀.jpg", "Füße 😀.jpg"),
        ("caf\udce9.jpg", "caf\\xe9.jpg"),
        ("half \ud83d", "half \\xed\\xa0\\xbd"),
    ],
)
def test_names_can_be_written(name, shown):
    assert printable(name) == shown
    assert printable(shown) == shown


def test_messages_are_one_short_line():
    assert brief(ValueError("a\n  b " + "x" * 500)) == "a b " + "x" * 116
    assert brief(MemoryError()) == "MemoryError"
    assert brief(ValueError(f"no image: {object()}")) == "no image: <object object>"


@pytest.mark.parametrize("value", [None, True, "1", 10**400, float("nan"), float("-inf"), [1]])
def test_what_is_no_finite_number(value):
    assert finite(value) is None


def test_finite_numbers_are_floats():
    assert [finite(v) for v in (3, -2.5, 0, 2**80)] == [3.0, -2.5, 0.0, float(2**80)]
