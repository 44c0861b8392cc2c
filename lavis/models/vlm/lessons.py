"""What a vision-language model is trained on: prompts, and the tokens it should write behind them.

Shapes: N texts of a batch, L predicted tokens, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from lavis.common.errors import RecordError
from lavis.models.base import IGNORED
from lavis.models.vlm.branches import TokenRow
from lavis.models.vlm.model import ImagePrompt, Views, VlmModel

logger = logging.getLogger(__name__)

_BLANK = torch.full((3, 64, 64), 128, dtype=torch.uint8)  # grey


@dataclass(frozen=True)
class Lesson:
    """One text of a batch.

    Attributes:
        row: what the model reads; its `place` is that among the N texts.
        target: tokens that should follow the prompt.
        is_blank: it only holds the place of a text that cannot be used.
    """

    row: TokenRow
    target: list[int] = field(default_factory=list)
    is_blank: bool = False


def make_lessons(
    model: VlmModel,
    views: Views,
    places: Sequence[int],
    prompts: Sequence[ImagePrompt],
    answers: Sequence[str] | None,
) -> list[Lesson]:
    """Return a lesson for each prompt; one that cannot be used is left out, and logged.

    Args:
        places: of the prompts, among the N texts.
        answers: N texts; None where only what follows the prompt is asked for.
    """
    lessons: list[Lesson] = []
    refused: dict[int, RecordError] = {}
    for own, written, encoded in model.encoded(views, prompts, refused):
        for at, (number, text) in enumerate(zip(own, written, strict=True)):
            place, target = places[number], []
            if answers is not None:
                try:
                    target = model.answer_tokens(text, answers[place])
                except RecordError as error:
                    refused[number] = error
                    continue
            lessons.append(Lesson(TokenRow(encoded, at, place, target[:-1]), target))
    log_rejects(error.reason for error in refused.values())
    return lessons


def fill_up(model: VlmModel, lessons: list[Lesson], count: int) -> list[Lesson]:
    """Return so many lessons, the last of them blank.

    Batches keep their size: processes that split a model's weights must call it equally often.
    """
    if len(lessons) == count:
        return lessons
    ((_, _, encoded),) = model.encoded([[_BLANK]], [ImagePrompt(0, "?")])
    blank = Lesson(TokenRow(encoded, 0, -1), is_blank=True)
    return [*lessons, *[blank] * (count - len(lessons))]


def lesson_logits(model: VlmModel, lessons: Sequence[Lesson]) -> tuple[Tensor, Tensor]:
    """Return logits `(L, V)` of all targets' tokens, after each other, and these `(L,)`.

    A blank lesson has one token that is ignored.
    """
    logits = torch.cat(model.training_logits([lesson.row for lesson in lessons]))
    targets = [token for lesson in lessons for token in lesson.target or [IGNORED]]
    return logits, torch.tensor(targets, device=logits.device)


def mean_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross entropy in float32; 0 where every target is ignored.

    Args:
        logits: `(L, V)`.
        targets: `(L,)`, -100 where none is predicted.
    """
    total = F.cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="sum")
    return total / (targets != IGNORED).sum().clamp(min=1)


def log_rejects(reasons: Iterable[str]) -> None:
    """Say which texts of a batch are not trained on."""
    for reason in reasons:
        logger.warning("training without a text: %s", reason)
