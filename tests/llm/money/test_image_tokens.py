"""What an image is billed by the providers' documented rules, with their own examples."""

import base64
import io

import pytest
from PIL import Image

from lavis.common.errors import ConfigError
from lavis.llm.base import image_part
from lavis.llm.config import read_llm
from lavis.llm.money.image_tokens import ImageTokens, ImageTokensConfig


def tokens(name, size, *, low=False, **config):
    return ImageTokens(ImageTokensConfig(**config), name, 1105).of_size(*size, low=low)


@pytest.mark.parametrize(
    ("model", "size", "expected"),
    [
        ("gpt-4o", (1024, 1024), 765),  # the document's examples: 768 square, 4 tiles
        ("gpt-4o", (2048, 4096), 1105),  # 768 by 1536, 6 tiles
        ("gpt-4o-2024-08-06", (512, 512), 255),
        ("gpt-4o-mini", (2048, 4096), 36835),  # 2833 + 6 * 5667
        ("openai/gpt-4o-mini", (512, 512), 8500),
        ("gpt-5", (1024, 1024), 630),
        ("o1", (1024, 1024), 675),
        ("gpt-4.1-mini", (1024, 1024), 1659),  # 32 * 32 patches * 1.62
        ("gpt-4.1-nano", (1800, 2400), 3779),  # 1536 patches at most
        ("gemini-2.5-flash", (384, 384), 258),
        ("gemini-2.5-flash", (960, 540), 6 * 258),  # the document's example: a unit of 360
        ("gemini-3-pro-preview", (4000, 3000), 1120),
        ("claude-sonnet-4-5", (200, 200), 54),
        ("claude-sonnet-4-5", (1000, 1000), 1334),
        ("claude-sonnet-4-5", (4000, 4000), 1600),
        ("Qwen/Qwen2.5-VL-7B-Instruct", (1024, 768), 37 * 27 + 2),
        ("Qwen/Qwen3-VL-8B-Instruct", (1024, 768), 32 * 24 + 2),
        ("my-own-model", (4000, 3000), 1105),
    ],
)
def test_a_models_name_tells_the_rule(model, size, expected):
    assert tokens(model, size) == expected


def test_a_deployments_name_says_nothing_so_the_run_file_does():
    assert tokens("my-deployment", (1024, 1024), model="gpt-4o-mini") == 2833 + 4 * 5667
    rule = {"rule": "openai_tiles", "base": 100, "each": 10}
    assert tokens("my-deployment", (1024, 1024), **rule) == 140
    assert tokens("my-deployment", (64, 64), rule="openai_tiles") == 2833 + 5667  # the dearest
    assert tokens("gpt-4o", (64, 64), rule="flat") == 1105
    assert tokens("gpt-4o", (1024, 1024), low=True) == 85
    assert tokens("gpt-4.1-mini", (1024, 1024), low=True) == 415  # 16 * 16 patches * 1.62
    with pytest.raises(ConfigError, match=r"image_token_rule.base: -1.* found, expected greater"):
        read_llm({"backend": "openai", "model": "m", "image_token_rule": {"base": -1}})


def image(width, height, kind="PNG", **save):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, kind, **save)
    return buffer.getvalue()


def test_the_size_is_read_from_the_image_that_is_sent():
    rule = ImageTokens(ImageTokensConfig(), "gpt-4o", 1105)
    part = image_part(image(1024, 1024))
    assert rule.of_part(part) == 765
    part["image_url"]["detail"] = "low"
    assert rule.of_part(part) == 85
    jpeg = image(1024, 1024, "JPEG", exif=b"Exif\0\0" + bytes(65000), icc_profile=bytes(65000))
    assert rule.of_part(image_part(jpeg)) == 765  # its size stands behind the first 64 KB
    for url in ("https://host/a.png", "data:image/png;base64,AAAA", "data:image/png,raw", "", 5):
        assert rule.of_part({"type": "image_url", "image_url": {"url": url}}) == 765  # 2048 square
    bare = {"type": "image_url", "image_url": "data:image/png;base64,"
            + base64.b64encode(image(64, 64)).decode()}  # fmt: skip
    assert rule.of_part(bare) == 255
