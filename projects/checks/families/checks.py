"""What is asked of a family: the library's numbers, batches, images, beams, shared prefixes.

Shapes: B texts, L tokens, P patches, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from lavis.common.errors import ConfigError
from lavis.models.late_fusion.config import FusionConfig, LateFusionConfig, VisionConfig
from lavis.models.late_fusion.model import LateFusion
from projects.checks.families.tiny import tiny_config

TOLERANCE = 1e-4  # of log-probabilities, relative to the largest
PATCHES, WIDTH = 3, 12
LENGTHS = (11, 7, 4)
LARGEST = 5_000_000  # weights: a family whose class does not get small is not built
AUTO = {"causal": AutoModelForCausalLM, "masked": AutoModelForMaskedLM}
RIGHT, REFUSED, WRONG, BROKEN, NOT_BUILT = "right", "refused", "WRONG", "TRACEBACK", "not built"


@dataclass(frozen=True)
class Outcome:
    """How a family fared: one of the words above, and a sentence."""

    kind: str
    model_type: str
    outcome: str
    note: str = ""

    @property
    def is_fault(self) -> bool:
        """Return whether something must be mended."""
        return self.outcome in (WRONG, BROKEN)


class _WrongError(Exception):
    """A comparison failed."""


def check_family(kind: str, model_type: str, folder: Path) -> Outcome:
    """Build a tiny model of a family into a folder, and try it.

    Args:
        kind: `causal` or `masked`.
    """

    def outcome(word: str, note: object = "") -> Outcome:
        text = " ".join(str(note).replace(str(folder), "...").split())
        return Outcome(kind, model_type, word, text)

    try:
        alone = _plain_model(kind, model_type, folder)
    except Exception as error:  # a tiny model of it is beyond this script
        return outcome(NOT_BUILT, f"{type(error).__name__}: {str(error).splitlines()[0][:120]}")
    try:
        model, init = _our_model(folder)
        notes = [note for check in CHECKS for note in check(model, init, alone)]
    except ConfigError as error:
        return outcome(REFUSED, error)
    except _WrongError as error:
        return outcome(WRONG, error)
    except Exception as error:
        return outcome(BROKEN, f"{type(error).__name__}: {str(error)[:160]}")
    return outcome(RIGHT, "; ".join(notes))


@torch.no_grad()
def _plain_model(kind: str, model_type: str, folder: Path) -> list[Tensor]:
    """Save a tiny random model; return log-probabilities of texts by plain transformers code."""
    config = tiny_config(kind, model_type)
    with torch.device("meta"):
        size = sum(weight.numel() for weight in AUTO[kind].from_config(config).parameters())
    if size > LARGEST:
        raise ValueError(f"its smallest model still has {size:,} weights")
    torch.manual_seed(0)
    model = AUTO[kind].from_config(config, dtype=torch.float32).eval()
    for name, weight in model.named_parameters():  # as trained: no gain is 1, no bias 0
        if weight.ndim < 2 and "A_log" not in name and "dt_bias" not in name:
            weight += 0.1 * torch.randn_like(weight)
        elif weight.ndim > 1:
            weight *= 4  # the library starts small: every token would be as likely
    found = []
    for text in _texts():
        logits = model(input_ids=text[None], attention_mask=torch.ones_like(text)[None]).logits
        found.append(logits[0].float().log_softmax(dim=-1))
    if not all(bool(one.isfinite().all()) for one in found):
        raise ValueError("random weights give no finite numbers")
    model.save_pretrained(folder)
    return found


def _texts() -> list[Tensor]:
    draw = torch.Generator().manual_seed(3)
    return [torch.randint(5, 60, (length,), generator=draw) for length in LENGTHS]


def _images(seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "vision_features": torch.randn(4, PATCHES, WIDTH, generator=draw),
        "image_index": torch.tensor([[0, 1], [2, 3], [1, 2]]),
        "scores": torch.tensor([[0.3, 0.9], [0.5, 0.6], [0.8, 0.2]]),
    }


def _our_model(folder: Path) -> tuple[LateFusion, str]:
    """Return our model, started as the error advises where the default start is refused."""

    def build(init: Any) -> LateFusion:
        torch.manual_seed(1)
        config = LateFusionConfig(
            llm=str(folder),
            vision=VisionConfig(name=None, width=WIDTH),
            fusion=FusionConfig(init=init),
        )
        return LateFusion.from_config(config).eval()

    try:
        return build("identity"), "identity"
    except ConfigError as error:
        if "model.fusion.init=random" not in str(error):
            raise
    return build("random"), "random"


def _batch(side: str) -> dict[str, Tensor]:
    texts, longest = _texts(), max(LENGTHS)
    ids = torch.zeros(len(texts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        where = slice(0, len(text)) if side == "right" else slice(longest - len(text), longest)
        ids[row, where], mask[row, where] = text, 1
    return {"input_ids": ids, "attention_mask": mask}


def _all_rows(model: LateFusion, sample: dict[str, Tensor]) -> Tensor:
    length = sample["input_ids"].shape[1]
    positions = torch.arange(length).expand(len(sample["input_ids"]), -1)
    return model.predict({**sample, "positions": positions})["log_probs"]


def _compare(what: str, found: Tensor, expected: Tensor) -> None:
    scale = max(1.0, expected.abs().max().item())
    apart = (found - expected).abs().max().item() / scale
    if not apart <= TOLERANCE:
        raise _WrongError(f"{what} differs by {apart:.1e}")


def _text_alone(model: LateFusion, init: str, alone: list[Tensor]) -> Iterator[str]:
    for text, expected in zip(_texts(), alone, strict=True):
        _compare("a text", _all_rows(model, {"input_ids": text[None]})[0], expected)
    for side in ("right", "left"):
        sample = _batch(side)
        found = _all_rows(model, sample)
        for row, expected in enumerate(alone):
            seen = sample["attention_mask"][row].bool()
            _compare(f"a text padded on the {side}", found[row, seen], expected)
    return iter(())


def _identity(model: LateFusion, init: str, alone: list[Tensor]) -> Iterator[str]:
    if init == "random":
        yield "starts at random only"
        return
    sample = _batch("right")
    found = _all_rows(model, {**sample, **_images()})
    for row, expected in enumerate(alone):
        seen = sample["attention_mask"][row].bool()
        _compare("a block started as identity", found[row, seen], expected)


def _fusion(model: LateFusion, init: str, alone: list[Tensor]) -> Iterator[str]:
    """From here on the block is as trained, not as started."""
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn(weight.shape, generator=draw))
    right, left = _batch("right"), _batch("left")
    last = model.predict({**right, **_images()})["log_probs"]
    _compare(
        "a fused text padded on the left", model.predict({**left, **_images()})["log_probs"], last
    )
    for row, text in enumerate(_texts()):
        own = {name: value[row : row + 1] for name, value in _images().items()}
        own["vision_features"] = _images()["vision_features"]
        found = model.predict({"input_ids": text[None], **own})["log_probs"]
        _compare("a fused text of a batch", last[row : row + 1], found)
    other = model.predict({**right, **_images(seed=9)})["log_probs"]
    if (other - last).abs().max() < 1e-4:
        raise _WrongError("another picture changes nothing")
    return iter(())


def _generation(model: LateFusion, init: str, alone: list[Tensor]) -> Iterator[str]:
    if model.language.is_masked:
        return
    sample = _batch("left")
    for beams in (1, 3):
        options = {"max_new_tokens": 5, "num_beams": beams, **_images()}
        ids, mask = sample["input_ids"], sample["attention_mask"]
        found = model.generate(ids, attention_mask=mask, **options)
        anew = model.generate(ids, attention_mask=mask, use_cache=False, **options)
        if not torch.equal(found, anew):
            raise _WrongError(f"with a cache {beams} beams find other words")
    if model.language.new_cache() is None:
        yield "generation without a cache"


def _sharing(model: LateFusion, init: str, alone: list[Tensor]) -> Iterator[str]:
    if model.language.is_masked:
        return
    if not model.language.branches:
        yield "beginnings are not shared"
        return
    texts = _texts()
    begun, rests = texts[0][:5], [texts[0][5:8], texts[1][:2], texts[2][:1]]
    ids = torch.zeros(3, 8, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, rest in enumerate(rests):
        length = len(begun) + len(rest)
        ids[row, :length], mask[row, :length] = torch.cat([begun, rest]), 1
    starts = model.shared_starts(5, torch.tensor([0]), torch.zeros(3, dtype=torch.long))
    shared = model.encode_text(ids, mask, starts).hidden[mask.bool()]
    whole = model.encode_text(ids, mask).hidden[mask.bool()]
    _compare("a shared beginning", shared, whole)


CHECKS: tuple[Callable[[LateFusion, str, list[Tensor]], Iterator[str]], ...] = (
    _text_alone,
    _identity,
    _fusion,
    _generation,
    _sharing,
)
