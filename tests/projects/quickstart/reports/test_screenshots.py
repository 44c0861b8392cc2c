"""The images of README: all that it shows are there, small, and can be made again."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from projects.quickstart.reports import screenshots

ROOT = Path(__file__).resolve().parents[4]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"assets/(\w+)\.png", README)


def test_readme_shows_images_that_the_script_makes():
    names = {shot.name: shot for shot in screenshots.SHOTS}
    assert SHOWN and set(SHOWN) <= set(names)
    for name in SHOWN:
        shot = names[name]
        path = ROOT / "assets" / f"{name}.png"
        assert path.stat().st_size < screenshots.MOST, name
        assert Image.open(path).size == shot.size, name


def test_headings_that_are_scrolled_to_are_those_of_the_pages():
    tops = " ".join(shot.top or "" for shot in screenshots.SHOTS)
    headings = set(re.findall(r"has-text\('([^']+)'\)", tops))
    paths = [p for p in (ROOT / "lavis" / "tasks").rglob("*.*") if p.suffix in (".py", ".jinja")]
    pages = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    assert headings and [heading for heading in headings if heading not in pages] == []


def test_every_image_of_readme_has_a_text():
    assert "![](" not in README
    assert all('alt="' in tag for tag in re.findall(r"<img [^>]*>", README))


def test_a_page_that_does_not_start_is_told():
    flags = ["no corpus.jsonl", "--image-root", "nowhere"]
    page = screenshots.served("browse.py", *flags)
    with pytest.raises(screenshots.DataError, match=r"served no page: error: "), page:
        pass


def test_without_the_quickstart_it_says_what_to_run(tmp_path):
    pytest.importorskip("playwright")
    command = [sys.executable, "-m", "projects.quickstart.reports.screenshots", str(tmp_path)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out"), "--only", "report"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )
    assert done.returncode == 2 and "run scripts/quickstart first" in done.stderr
    assert not (tmp_path / "out").exists()
