"""Multiple choice by the letter of an option, also with the options in every rotation.

Shapes: C candidates of a row, R rotations of it (1, or C), M questions: R of each row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lavis.common.errors import ConfigError
from lavis.tasks.base import UnitBatch

if TYPE_CHECKING:
    from torch import Tensor

MOST = 26  # candidates of a record


@dataclass(frozen=True)
class Lettered:
    """The questions of a unit, each with its row's candidates as lettered options.

    Rotation r of C candidates shows them in the order r, r + 1, ..., C - 1, 0, ..., r - 1, so that
    each candidate stands at each letter once (circular evaluation, MMBench: arXiv 2307.06281).

    Attributes:
        counts: C of every row.
        circular: R is C, not 1.
        samples: `parts` (question and options) and `image_index`, for each of the M questions.
    """

    counts: tuple[int, ...]
    circular: bool
    samples: Mapping[str, Any]

    @classmethod
    def of(cls, batch: UnitBatch, *, circular: bool) -> Lettered:
        """Return the questions of a unit.

        Raises:
            ConfigError: the data set does not part its texts, or a row has more than 26 candidates.
        """
        parts, index, counts = [], [], []
        images = [int(i) for i in batch.samples["image_index"]]
        place = 0
        for row in batch.rows:
            texts = row.all_parts
            if not all(part["answer"] for part in texts):
                raise ConfigError(
                    "run.score: letters needs records with `text_input` and `choices`, as those of "
                    "datasets.unified_contrastive"
                )
            answers = [part["answer"] for part in texts]
            if len(answers) > MOST:
                raise ConfigError(
                    f"run.score: letters end with Z, and row {row.index} has {len(answers)} "
                    "candidates; use run.score=itm or likelihood"
                )
            for first in range(len(answers) if circular else 1):
                options = answers[first:] + answers[:first]
                parts.append({"question": texts[0]["question"], "options": options})
                index.append(images[place])
            place += len(answers)
            counts.append(len(answers))
        return cls(tuple(counts), circular, {"parts": parts, "image_index": index})

    def notes(self, notes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the model's notes on questions as notes on candidates: rejects only."""
        if not notes:
            return []
        own: list[dict[str, Any]] = []
        place = 0
        for count in self.counts:
            rotations = notes[place : place + (count if self.circular else 1)]
            place += len(rotations)
            rejects = [note for note in rotations if "reject" in note]
            own += [dict(rejects[0]) if rejects else {}] * count
        return own

    def scores(self, log_probs: Tensor) -> dict[str, Tensor]:
        """Return `match` `(N,)`, and with `circular` `choices` `(N,)`, of `(M, O)` letters.

        A candidate's score is the log-probability of its letter among those of its question,
        averaged over rotations; a choice is the candidate with the likeliest letter.
        """
        import torch

        matches, choices = [], []
        place = 0
        for count in self.counts:
            rotations = count if self.circular else 1
            letters = log_probs[place : place + rotations, :count].float().log_softmax(dim=1)
            place += rotations
            # candidate c stands at letter (c - r) % C of rotation r
            candidates = torch.arange(count, device=letters.device)
            firsts = torch.arange(rotations, device=letters.device)
            by_candidate = letters.gather(1, (candidates[None] - firsts[:, None]) % count)  # (R, C)
            matches.append(by_candidate.mean(dim=0))
            choices.append(by_candidate.argmax(dim=1))
        outputs = {"match": torch.cat(matches)}
        return {**outputs, "choices": torch.cat(choices)} if self.circular else outputs
