"""Try families of vision-language models, as tiny random ones, and print a table.

    python -m projects.checks.vlm_families                     # all that a tiny model is made of
    python -m projects.checks.vlm_families qwen3_vl gemma3 --markdown table.md

Each is built, saved, loaded and compared with plain transformers code: log-probabilities behind a
prompt alone, in batches with other images, and from branches of one read image; and a box written
and read in the family's own text comes back within its bound, in the frame that the installed
processor makes. The exit status is 1 where one of them differs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lavis.common.command import command
from lavis.common.errors import ConfigError
from lavis.common.storage.atomic import write_text

if TYPE_CHECKING:
    from lavis.models.vlm.critic import VlmCritic

TOLERANCE = 1e-4  # of log-probabilities
COLUMNS = ("loads", "score equal", "batch equal", "branch equal", "region text right")
TEXTS = ("Is the cat red?", "Is the cat left of a dog? Please answer Yes or No.", "What?")
BOX = (20.5, 11.0, 97.0, 64.0)
_EDGES = ((130, 90), (64, 64))  # of the images, width and height


@dataclass(frozen=True)
class Fared:
    """How a family fared: a word for each column, and why it is refused or what is to be known."""

    family: str
    words: Mapping[str, str]
    note: str = ""

    @property
    def is_fault(self) -> bool:
        """Return whether something must be mended."""
        return any(word.startswith(("NO", "ERROR")) for word in self.words.values())


@command
def main() -> int:
    """Print a line for each family."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("family", nargs="*", help="model types (none: all)")
    parser.add_argument("--markdown", type=Path, help="also write the table into this file")
    args = parser.parse_args()
    import transformers

    from lavis.common.multimodal.families import families
    from projects.checks.tiny_vlm.making import BUILDERS

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    asked = args.family or [*BUILDERS, *(set(families()) - set(BUILDERS))]
    outcomes = []
    for family in sorted(asked):
        with TemporaryDirectory() as folder:
            outcomes.append(check_family(family, folder))
        words = ", ".join(f"{name}: {word}" for name, word in outcomes[-1].words.items())
        print(f"{family:16} {words} {outcomes[-1].note}".rstrip(), flush=True)
    if args.markdown is not None:
        write_text(args.markdown, markdown(outcomes))
    return int(any(one.is_fault for one in outcomes))


def markdown(outcomes: Sequence[Fared]) -> str:
    """Return the table."""
    import transformers

    lines = [
        f"transformers {transformers.__version__}, tiny random models, float32 on a CPU:",
        "",
        f"| family | {' | '.join(COLUMNS)} | |",
        "|---" * (len(COLUMNS) + 2) + "|",
    ]
    for one in outcomes:
        words = " | ".join(one.words.get(name, "").replace("|", "\\|") for name in COLUMNS)
        lines.append(f"| {one.family} | {words} | {one.note} |")
    return "\n".join(lines) + "\n"


def check_family(family: str, folder: str) -> Fared:
    """Build a tiny model of a family into a folder, and try it."""
    from lavis.common.multimodal.families import family_of
    from lavis.models.vlm.config import VlmCriticConfig
    from lavis.models.vlm.critic import VlmCritic
    from projects.checks.tiny_vlm.making import BUILDERS, make_vlm, why_absent

    row = family_of(family)
    if why_absent(family):
        return Fared(family, {}, why_absent(family))
    if row.refused:
        return Fared(family, {"loads": "refused"}, row.refused)
    if family not in BUILDERS:
        return Fared(family, {}, "no tiny model is made; its row is that of its kin")
    try:
        make_vlm(family, folder)
        critic = VlmCritic(VlmCriticConfig(name=folder, dtype="fp32"))
        words = {"loads": "yes", **_compared(critic, folder), **_regions(critic)}
    except ConfigError as error:
        return Fared(family, {"loads": "refused"}, str(error))
    except Exception as error:  # a fault of ours or of the library: the table says which
        return Fared(family, {"loads": f"ERROR {type(error).__name__}"}, str(error)[:160])
    return Fared(family, words, row.why if row.branches == "never" else "")


def _compared(critic: VlmCritic, folder: str) -> dict[str, str]:
    import torch

    from lavis.models.vlm.model import ImagePrompt
    from projects.checks.tiny_vlm.plain import plain_scores

    draw = torch.Generator().manual_seed(0)
    views = [
        [torch.randint(0, 256, (3, height, width), generator=draw).to(torch.uint8)]
        for width, height in _EDGES
    ]
    prompts = [ImagePrompt(image, text) for text in TEXTS for image in range(len(views))]
    ids = range(len(critic.processor.tokenizer))
    expected = torch.stack(
        [plain_scores(folder, views[one.image], one.text)[-1, : len(ids)] for one in prompts]
    )
    alone = torch.cat([critic.next_token(views, [one], ids) for one in prompts])
    assert critic.reader.passes["branches"] == 0
    branched = critic.next_token(views, prompts, ids)
    took = critic.reader.passes["branches"] == len(views)
    critic.reader.shares = False
    batch = critic.next_token(views, prompts, ids)
    gaps = [(scores - expected).abs().max().item() for scores in (alone, batch, branched)]
    words = [f"{'yes' if gap <= TOLERANCE else 'NO'}, {gap:.0e}" for gap in gaps]
    return dict(zip(COLUMNS[1:4], words if took else [*words[:2], "read whole"], strict=True))


def _regions(critic: VlmCritic) -> dict[str, str]:
    from lavis.common.regions.conventions import (
        convention_of,
        from_model,
        rounding_bound,
        to_model,
    )
    from lavis.common.regions.shapes import Shape

    size = _EDGES[0]
    settings = critic.processor.image_processor.to_dict()
    try:
        convention = convention_of(critic.vlm.config.model_type, settings)
    except ConfigError:
        return {COLUMNS[4]: "not in the table"}
    if convention.style is None:
        return {COLUMNS[4]: "none documented"}
    wrong = _wrong_frame(critic, convention.frame(size).model)
    if wrong:
        return {COLUMNS[4]: f"NO, {wrong}"}
    shape = Shape.of_box(BOX)
    if "box" not in convention.writes:
        shape = Shape.of_point(shape.centre())
    (text,) = to_model([shape], size, convention, ["cat"])
    (reply,) = from_model(text, size, convention)
    bound = [*rounding_bound(size, convention)] * 2
    places: list[Any] = [shape.value, reply.shape.value]
    pairs = zip(*places, bound, strict=False)
    right = all(abs(one - other) <= most + 1e-9 for one, other, most in pairs)
    return {COLUMNS[4]: f"{'yes' if right else 'NO'}, {text}"}


def _wrong_frame(critic: VlmCritic, model: tuple[int, int]) -> str:
    """Return how the installed processor's size differs, where it tells it by a grid of patches."""
    import torch

    from lavis.models.vlm.inputs import as_image

    width, height = _EDGES[0]
    images: Any = critic.processor.image_processor
    made = images(as_image(torch.zeros(3, height, width, dtype=torch.uint8)), return_tensors="pt")
    if "image_grid_thw" not in made:
        return ""
    _, rows, columns = made["image_grid_thw"][0].tolist()
    seen = (columns * images.patch_size, rows * images.patch_size)
    return "" if seen == model else f"the processor makes {seen}, the table {model}"


if __name__ == "__main__":
    sys.exit(main())
