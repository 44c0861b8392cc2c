"""Take the images of pages and reports that README shows, from the quickstart's output.

    scripts/quickstart && python -m projects.quickstart.reports.screenshots \
        output/quickstart --out assets

Needs playwright and Chromium (`pip install '.[dev,ui]'`). The folder is only read: the pages are
served from it, and judgements go to a temporary folder.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis.common.command import command
from lavis.common.errors import ConfigError, DataError
from lavis.common.storage.atomic import AtomicFile

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
DESK, PHONE = (1280, 860), (390, 844)
MOST = 300_000  # bytes of an image


@dataclass(frozen=True)
class Shot:
    """One image.

    Attributes:
        name: of the file, without its ending.
        page: `browse` or `label`, or a report's file below the output folder.
        address: behind the page's own.
        top: the first element of its kind that the window's top is scrolled to.
        opens: selector that is waited for.
    """

    name: str
    page: str
    address: str = ""
    size: tuple[int, int] = DESK
    dark: bool = False
    top: str | None = None
    opens: str = "main"


SHOTS = (
    Shot("label", "label", opens=".lv-picture img"),
    Shot("label_phone", "label", "/?record=5", PHONE, opens=".lv-picture img"),
    Shot("browse", "browse", "/?order=difference-desc&regions_from=2", opens=".lv-picture img"),
    Shot(
        "browse_record",
        "browse",
        "/?order=distance-desc&open=4",
        dark=True,
        opens="dialog[open] .lv-picture img",
    ),
    Shot("browse_phone", "browse", "/?score_from=0.5", PHONE, top=".lv-line",
         opens=".lv-picture img"),
    Shot("report", "report.html"),
    Shot("report_examples", "report.html", top="h2:has-text('Examples')"),
    Shot("report_phone", "report.html", size=PHONE, dark=True, top="h2:has-text('Examples')"),
    Shot("comparison", "loop/zero_shot/report.html", top="h2:has-text('Wrong')"),
    Shot("questions", "colours/report.html", top="h2:has-text('Right with images')"),
    Shot("corpus", "loop/qar/report.html", top="h2:has-text('Examples')"),
)  # fmt: skip


@contextlib.contextmanager
def served(script: str, *flags: object) -> Iterator[str]:
    """Give the address of a page that a script serves.

    Raises:
        DataError: it ended before it served one.
    """
    process = subprocess.Popen(
        [sys.executable, "-u", str(SCRIPTS / script), *map(str, flags)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = []
    try:
        for line in process.stdout:
            said.append(line)
            if match := re.match(r"open (\S+)", line):
                yield match[1].rstrip("/")
                return
        raise DataError(f"{script} served no page: {' '.join(said)[-300:]}")
    finally:
        process.kill()
        process.wait()


def take(browser: Any, shot: Shot, address: str, target: Path) -> None:
    """Write one image; in few colours where it would be large."""
    from PIL import Image

    width, height = shot.size
    scheme = "dark" if shot.dark else "light"
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.goto(address + shot.address)
    page.wait_for_selector(shot.opens, timeout=60_000)
    if shot.top is not None:
        found = page.locator(shot.top).first
        found.evaluate("(one) => scrollTo(0, one.getBoundingClientRect().top + scrollY - 12)")
    page.wait_for_timeout(500)  # images decode, and the page's parts move to their places
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    page.close()
    with AtomicFile(target) as file:
        file.write(_png(image) if len(_png(image)) <= MOST else _png(image.quantize(256)))
    print(f"{target}: {width} x {height}, {target.stat().st_size / 1e3:.0f} kB")


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def run(output: Path, out: Path, wanted: list[str]) -> None:
    """Take the images that are asked for."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise ConfigError("screenshots need playwright: pip install '.[dev,ui]'") from None
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    shots = [shot for shot in SHOTS if not wanted or shot.name in wanted]
    for shot in shots:
        needed = output / (shot.page if shot.page.endswith(".html") else "world/test.jsonl")
        if not needed.is_file():
            raise DataError(f"{needed}: not there; run scripts/quickstart first")
    corpus = [output / "world" / "test.jsonl", "--image-root", output / "world"]
    flags = {
        "browse": [
            "browse.py",
            *corpus,
            "--scores",
            output / "result" / "test_epochbest.jsonl",
            "--compare",
            output / "shipped" / "result" / "test_epochbest.jsonl",
        ],
        "label": ["label_qar.py", *corpus, "--annotators", "ann,bo", "--order", "file"],
    }
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        flags["label"] += ["--out", Path(scratch) / "labels"]
        pages = {
            name: stack.enter_context(served(*map(str, flags[name]), "--cache-dir", scratch))
            for name in sorted({shot.page for shot in shots} & set(flags))
        }
        browser = stack.enter_context(sync_playwright()).chromium.launch(
            executable_path=chromium, args=["--no-sandbox"]
        )
        for shot in shots:
            address = pages.get(shot.page) or (output / shot.page).resolve().as_uri()
            take(browser, shot, address, out / f"{shot.name}.png")
        browser.close()


@command
def main(argv: list[str] | None = None) -> None:
    """Take the images that the flags name."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("output", type=Path, help="output folder of scripts/quickstart")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    parser.add_argument(
        "--only", nargs="+", default=[], choices=[shot.name for shot in SHOTS], help="these ones"
    )
    args = parser.parse_args(argv)
    run(args.output, args.out, args.only)


if __name__ == "__main__":
    sys.exit(main())
