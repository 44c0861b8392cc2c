"""Fixtures of tests against a chat server on loopback, and of verbalizations."""

import json

import pytest
import yaml
from chat_server import serve, settings, unknown_names  # noqa: F401 - fixtures
from generation_run import image
from seen_run import seen  # noqa: F401 - a fixture
from verbalizing import run_file, tiny, world  # noqa: F401 - fixtures


@pytest.fixture
def job(tmp_path, settings):  # noqa: F811 - the fixture
    """Return a function that writes data and a run file and returns its path."""

    def make(server=None, images=4, llm=None, **more):
        records = tmp_path / "words.jsonl"
        records.write_text("".join(json.dumps(image(i)) + "\n" for i in range(images)))
        node = {
            "llm": llm or settings(server),
            "generate": {
                "records": [str(records)],
                "prompts": [{"source": "s_v4", "num_items": 2}],
                **more,
            },
            "run": {"output_dir": str(tmp_path / "out")},
        }
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(node))
        return path

    return make
