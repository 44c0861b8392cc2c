"""Segments of a journal: damage loses its unit only, and another job's are refused."""

import json
import re

import pytest

from lavis.common.errors import ConfigError
from lavis.common.storage.journal import Journal, JournalReader, finished
from lavis.common.storage.segments import open_segments, scan_segment

SEED = {"run": {"seed": 1}}


def payload(row: int) -> dict:
    return {"text": f"row {row}", "score": row / 7}


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"rows": 2', '"rows": 3'),
        lambda text: text.replace('"crc32": ', '"crc32": 1'),
        lambda text: text.replace('"unit": 1', '"unit": "1"'),
        lambda text: text.replace('{"unit": 1,', '{"unit: 1,'),
        lambda text: text.replace('{"unit": 1, "rows": 2', '7 {"unit": 1, "rows": 2'),
        lambda text: text.replace("[2, ", "[x, "),
        lambda text: text.replace('[3, {"text"', '[4, {"text"'),
        lambda text: text.replace('"inputs"', '"inputz"'),
    ],
)
def test_damage_of_any_line_loses_its_unit_and_is_said(tmp_path, damage, caplog):
    with Journal(tmp_path, SEED) as journal:
        journal.append(0, [(0, payload(0)), (1, payload(1))])
        journal.append(1, [(2, payload(2)), (3, payload(3))], [[0, "a.jpg", [1], None]])
        journal.append(2, [(5, payload(5))], [[0, "b.jpg", [1], None]])
    (segment,) = tmp_path.glob("*.jsonl")
    text = segment.read_text()
    head, unit = text[: text.index("[2, ")], text[text.index("[2, ") : text.index("[5, ")]
    damaged = damage(unit)
    assert damaged != unit
    segment.write_text(head + damaged + text[text.index("[5, ") :])
    assert [unit.unit for unit in scan_segment(segment)] == [0, 2]
    assert [row for row, _ in JournalReader(tmp_path, SEED).iterate()] == [0, 1, 5]
    assert [noted.unit for noted in finished(tmp_path, SEED).noted()] == [2]
    assert f"{segment}: passed over a damaged unit before byte " in caplog.text
    where = [int(found) for found in re.findall(r"before byte (\d+)", caplog.text)]
    assert len(head) <= where[0] < len(head) + len(damaged)


HEADER = {"journal": 2, "rank": 0, "start": 1, "places": [], "fingerprint": SEED}


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("7", "no readable header"),
        ("[", "no readable header"),
        (json.dumps({**HEADER, "start": "1"}), "no readable header"),
        (json.dumps({**HEADER, "places": None}), "no readable header"),
        (json.dumps({**HEADER, "fingerprint": []}), "no readable header"),
        (json.dumps({k: v for k, v in HEADER.items() if k != "start"}), "no readable header"),
        (json.dumps({**HEADER, "journal": 3}), "written in form 3 by another version"),
        (json.dumps({**HEADER, "fingerprint": {}}), "belongs to another job"),
    ],
)
def test_headers_that_are_none_of_ours(tmp_path, header, problem):
    (tmp_path / "a.jsonl").write_text(json.dumps(HEADER) + "\n")
    assert list(finished(tmp_path, SEED).units) == []
    (tmp_path / "b.jsonl").write_text(header + "\n")
    with pytest.raises(ConfigError, match=problem):
        finished(tmp_path, SEED)
    (tmp_path / "b.jsonl").write_text(header)  # killed in its header: nothing was written
    assert [one.path.name for one in open_segments(tmp_path, SEED)] == ["a.jsonl"]
