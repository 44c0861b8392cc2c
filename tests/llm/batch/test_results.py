"""Result files against what the server counts: how many of the missing it may have done."""

import json

import pytest

from lavis.llm.batch.results import count_results
from lavis.llm.batch.server import BatchState

KEYS = ["a", "b", "c", "d"]


def answer(key):
    return {"custom_id": key, "response": {"status_code": 200, "body": {"choices": []}}}


@pytest.mark.parametrize(
    ("end", "completed", "unknown"),
    [
        ("completed", 2, 0),  # both are there
        ("completed", 3, 1),
        ("completed", 9, 2),  # never more than are missing
        ("completed", None, 2),  # it does not count
        ("completed", 1, 2),  # it counts fewer than there are
        ("expired", 1, 0),  # its count lags behind where the job did not run to its end
        ("cancelled", 3, 1),
    ],
)
def test_what_a_server_may_have_done_of_the_missing(tmp_path, end, completed, unknown):
    path = tmp_path / "output.jsonl"
    path.write_text("".join(json.dumps(answer(key)) + "\n" for key in ("a", "b")))
    state = BatchState(end, end, {"output": "f"}, completed, 0, 4, [])
    counted = count_results([path], KEYS)
    assert counted.missing == {"c", "d"} and counted.unknown(state) == unknown
