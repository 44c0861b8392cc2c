"""What servers say they counted, in the forms in which they say it."""

import io

import pytest
from PIL import Image

from lavis.llm.base import ChatRequest, image_part
from lavis.llm.config import read_llm
from lavis.llm.money.tokens import TokenCounter, read_usage


def image(width, height, kind="PNG", **save):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, kind, **save)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}, (10, 5)),
        ({"input_tokens": 10, "output_tokens": 5}, (10, 5)),
        ({"prompt_tokens": "10", "completion_tokens": 5.0}, (10, 5)),
        ({"prompt_tokens": 10}, (10, 0)),
        ({"completion_tokens": 5}, (0, 5)),
        ({"total_tokens": 15}, (12, 3)),  # split by the length of the reply, 3 here
        ({"total_tokens": 2}, (1, 1)),
        ({"prompt_tokens": 10, "total_tokens": 15}, (10, 5)),
        ({"completion_tokens": 5, "total_tokens": 15}, (10, 5)),
        # reasoning that is left out of the reply's count, by the total or by the details
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 115}, (10, 105)),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "completion_tokens_details": {"reasoning_tokens": 90},
            },
            (10, 90),
        ),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 95,
                "completion_tokens_details": {"reasoning_tokens": 90},
                "prompt_tokens_details": {"cached_tokens": 8},
            },
            (10, 95),
        ),
        ({"prompt_tokens": -7, "completion_tokens": 5}, (0, 5)),
        ({"prompt_tokens": True, "completion_tokens": None}, None),
        ({"prompt_tokens": {"text": 3}, "completion_tokens": [3]}, None),
        ({"prompt_tokens": float("nan"), "completion_tokens": float("inf")}, None),
        ({"prompt_tokens": "many"}, None),
        ({"prompt_tokens": 1e30, "completion_tokens": 5}, (int(1e30), 5)),
        ({}, None),
        (None, None),
        ("10", None),
        ([10, 5], None),
        (True, None),
    ],
)
def test_a_count_is_never_read_as_less_than_said(usage, expected):
    assert read_usage(usage, 3) == expected


def test_estimates_and_bounds_count_images_and_words_of_every_script():
    node = {"backend": "openai", "model": "gpt-4o-mini"}
    counter = TokenCounter(read_llm(node))
    content = [{"type": "text", "text": "what is it?"}, image_part(image(600, 600))]
    request = ChatRequest("k", [{"role": "user", "content": content}])
    bound = counter.bound(request)
    assert (bound.images, bound.documented) == (2833 + 4 * 5667, True)
    assert counter.estimate(request) == bound.images + 3 + 4
    plain = TokenCounter(read_llm(node | {"model": "x", "image_tokens": 300})).bound(request)
    assert (plain.images, plain.documented) == (300, False)
    thai = ChatRequest("k", [{"role": "user", "content": "\u0e01" * 100}])
    assert counter.estimate(thai) == 75 + 4  # three bytes each
    assert counter.bound(thai).text >= 300
    dense = TokenCounter(read_llm(node | {"chars_per_token": 2.0}))
    assert dense.estimate(thai) == 150 + 4 and dense.method == "2 characters a token"
