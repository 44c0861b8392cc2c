"""Lines of a ledger that cannot be written or read."""

import pytest
from accounts import BOUND, account

from lavis.common.errors import ConfigError, RunError
from lavis.llm.money.ledger import Ledger


def test_a_ledger_that_cannot_be_written_stops_before_sending(tmp_path):
    ledger = Ledger(tmp_path)
    client = account(ledger)
    with open("/dev/full", "wb", buffering=0) as full:
        ledger._file._file.close()
        ledger._file._file = full
        for _ in range(2):
            with pytest.raises(RunError, match=r"ledger.jsonl: what is spent cannot be written"):
                client.reserve("a", BOUND, 20)
        assert ledger.state.total().requests == 0
        ledger.close()
    with Ledger(tmp_path) as again:
        assert again.state.total().requests == 0


@pytest.mark.parametrize(
    "line",
    [
        b"not json\n",
        b"\xff\xfe\n",
        b'{"close": "a", "totals": {"requests": "5"}}\n',
        b'{"close": "a", "totals": {"requests": -5}}\n',
        b'{"close": "a", "totals": {"cost": NaN}}\n',
        b'{"close": "a"}\n',
        b"[]\n",
        b'{"reserve": "a", "totals": {}, "bound": 5, "max_tokens": 1, "price": [1, 1]}\n',
    ],
)
def test_a_damaged_ledger_is_told_with_its_line(tmp_path, line):
    Ledger(tmp_path).close()
    with open(tmp_path / "ledger.jsonl", "ab") as file:
        file.write(line)
    with pytest.raises(ConfigError, match=r"ledger.jsonl, line 2: damaged; what was spent is not"):
        Ledger(tmp_path)
    with open(tmp_path / "ledger.jsonl", "wb") as file:
        file.write(line[:-1])  # torn: never acted upon
    Ledger(tmp_path).close()
