"""The work of the labelling page without the page: what to show next, and saving what was said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lavis.common.errors import ConfigError, RecordError
from lavis.ui.judgements import Judgement, JudgementStore, Verdict, now
from lavis.ui.label_queue import Item, LabelQueue, Progress
from lavis.ui.shown import RecordViewer, ShownRecord


@dataclass(frozen=True, kw_only=True)
class LabelView:
    """What an annotator sees.

    Attributes:
        item: the record to judge; None when the queue is done.
        shown: the record's picture and text, or None where it cannot be read.
        place: of the item in the annotator's queue, from 1.
        earlier: what the annotator said of it before.
        message: why nothing was saved, or empty.
    """

    annotator: str
    progress: Progress
    item: Item | None = None
    shown: ShownRecord | None = None
    place: int = 0
    earlier: Judgement | None = None
    message: str = ""


def scale_of(steps: int) -> tuple[float, ...]:
    """Return the scores that can be given, evenly from 0 to 1.

    Raises:
        ConfigError: fewer than 2 or more than 5, the keys there are.
    """
    if not 2 <= steps <= 5:
        raise ConfigError(f"--steps {steps}: use 2 to 5")
    return tuple(round(i / (steps - 1), 4) for i in range(steps))


class LabelDesk:
    """Serves all annotators.

    Args:
        viewer: shows rows.
        queue: who judges what.
        store: where judgements go.
        scale: scores that can be given, ascending.
        need_scores: refuse an accept or reject without its scores.
    """

    def __init__(
        self,
        viewer: RecordViewer,
        queue: LabelQueue,
        store: JudgementStore,
        *,
        scale: Sequence[float] = (0.0, 0.5, 1.0),
        need_scores: bool = True,
    ) -> None:
        self.viewer = viewer
        self.queue = queue
        self.store = store
        self.scale = tuple(scale)
        self.need_scores = need_scores

    @property
    def annotators(self) -> list[str]:
        """Names of all annotators."""
        return self.store.annotators

    def start(self, annotator: str) -> LabelView:
        """Return the first record without a judgement."""
        return self._next(annotator, None)

    def back(self, annotator: str, key: str | None) -> LabelView:
        """Return the record before `key` (None: the end of the queue), with what was said of it."""
        self._check(annotator, key)
        item = self.queue.before(annotator, key)
        if item is None:
            item = None if key is None else self.queue.item(annotator, key)
            return self._view(annotator, item, message="This is the first record.")
        return self._view(annotator, item)

    def judge(
        self,
        annotator: str,
        key: str | None,
        verdict: str | None,
        *,
        qa_score: float | None = None,
        r_score: float | None = None,
        seconds: float | None = None,
    ) -> LabelView:
        """Save a judgement and return the next record; with a `message` where something lacks.

        Raises:
            ConfigError: an annotator or a record that is not there.
        """
        item = self._check(annotator, key)
        if item is None:
            return self._next(annotator, None)
        lacking = self._lacking(item, verdict, qa_score, r_score)
        if lacking:
            return self._view(annotator, item, message=f"Not saved yet: {lacking}.")
        self._save(
            annotator,
            item,
            verdict="accept" if verdict == "accept" else "reject",
            qa_score=qa_score,
            r_score=r_score if item.has_rationale else None,
            seconds=seconds,
        )
        return self._next(annotator, item.key)

    def skip(self, annotator: str, key: str | None) -> LabelView:
        """Leave a record out of the annotator's queue and return the next one."""
        item = self._check(annotator, key)
        if item is None:
            return self._next(annotator, None)
        self._save(annotator, item, verdict="skip")
        return self._next(annotator, item.key)

    def _check(self, annotator: str, key: str | None) -> Item | None:
        self.store.file(annotator)
        item = None if key is None else self.queue.item(annotator, key)
        if key is not None and item is None:
            raise ConfigError(f"record {key} is not in the queue of {annotator}")
        return item

    def _lacking(
        self, item: Item, verdict: str | None, qa_score: float | None, r_score: float | None
    ) -> str:
        if verdict not in ("accept", "reject"):
            return "choose accept or reject"
        for score in (qa_score, r_score):
            if score is not None and score not in self.scale:
                raise ConfigError(f"score {score}; use one of {self.scale}")
        if self.need_scores and qa_score is None:
            return "rate question and answer"
        if self.need_scores and item.has_rationale and r_score is None:
            return "rate the rationale"
        return ""

    def _save(
        self,
        annotator: str,
        item: Item,
        *,
        verdict: Verdict,
        qa_score: float | None = None,
        r_score: float | None = None,
        seconds: float | None = None,
    ) -> None:
        judgement = Judgement(
            key=item.key,
            annotator=annotator,
            verdict=verdict,
            qa_score=qa_score,
            r_score=r_score,
            seconds=None if seconds is None else round(seconds, 1),
            time=now(),
            instance=item.instance,
        )
        self.store.file(annotator).append(judgement)

    def _next(self, annotator: str, after: str | None) -> LabelView:
        done = self.store.file(annotator).latest()
        return self._view(annotator, self.queue.following(annotator, done, after))

    def _view(self, annotator: str, item: Item | None, message: str = "") -> LabelView:
        said = self.store.file(annotator).latest()
        progress = self.queue.progress(annotator, said)
        if item is None:
            return LabelView(annotator=annotator, progress=progress, message=message)
        shown = None
        try:
            shown = self.viewer.show(item.index)
        except RecordError as error:  # the file changed under us
            message = f"{message} {error.reason}".strip()
        return LabelView(
            annotator=annotator,
            progress=progress,
            item=item,
            shown=shown,
            place=self.queue.place(annotator, item.key) + 1,
            earlier=said.get(item.key),
            message=message,
        )
