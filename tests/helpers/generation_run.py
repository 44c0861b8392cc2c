"""Images, replies about them, and the command that asks for those: for tests of generation."""

import json
import re

from launching import main_of


def image(number):
    name = f"a_{number:03d}.png"
    return {
        "image": name,
        "width": 100,
        "height": 100,
        "captions": [f"image {number}: a man and a dog"],
        "region_locations": [
            {"boxes": [[0, 0, 20, 20]], "obj_guess": "dog", "caption": "a brown dog"},
            {"boxes": [[50, 20, 90, 70]], "obj_guess": "man", "caption": "a man in a blue coat"},
        ],
    }


def items(*texts):
    return json.dumps(
        {"items": [{"question": q, "answer": a, "rationale": r} for q, a, r in texts]}
    )


GOOD = ("Why is [1] near [0]?", "[1] owns [0].", "[1] holds the lead of [0].")
OTHER = ("What will [0] do next?", "[0] will run.", "[0] looks at a ball.")


def number_of(body):
    """Return the number of the image a request is about."""
    return int(re.search(r"image (\d+):", body["messages"][1]["content"])[1])


def run(path, *options):
    return main_of("scripts/generate_qar.py")(["--cfg-path", str(path), *options])


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]
