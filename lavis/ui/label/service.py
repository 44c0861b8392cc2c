"""The labelling page without its components: which record comes next, and saving judgements."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lavis.common.errors import ConfigError, RecordError
from lavis.ui.label.agreement import agreement_report, differing
from lavis.ui.label.judgements import (
    COMMENT_LENGTH,
    LABELS,
    Judgement,
    JudgementStore,
    now,
)
from lavis.ui.label.queue import LabelItem, LabelProgress, LabelQueue
from lavis.ui.shown import RecordViewer, ShownRecord

Mode = Literal["label", "review"]


@dataclass(frozen=True, kw_only=True)
class LabelView:
    """What an annotator sees.

    Attributes:
        item: the record to judge; None when the queue is done.
        shown: the record's image and text, or None where it cannot be read.
        place: of the item in the annotator's queue, from 1.
        earlier: the annotator's previous judgement of it.
        message: why nothing was saved or shown, or empty.
        mode: `label` goes through the queue, `review` through the records on which people differ.
        judgements: in `review`, everybody's judgement of the record.
        differing: in `review`, how many such records this annotator can judge, and how many more
            are in other queues or unread rows.
    """

    annotator: str
    progress: LabelProgress
    item: LabelItem | None = None
    shown: ShownRecord | None = None
    place: int = 0
    earlier: Judgement | None = None
    message: str = ""
    mode: Mode = "label"
    judgements: tuple[Judgement, ...] = ()
    differing: tuple[int, int] = (0, 0)

    @property
    def token(self) -> str:
        """Sent back by the page with a judgement, so that it goes to the record shown."""
        return f"{self.item.key if self.item else '-'} {self.annotator}"


def read_token(token: str) -> tuple[str | None, str]:
    """Return the key (None: no record) and the annotator of a page's token."""
    key, _, annotator = token.partition(" ")
    return (None if key == "-" else key), annotator


def read_mode(value: str | None) -> Mode:
    """Return a mode by its name (none: `label`); raises `ConfigError` for another name."""
    if value in (None, ""):
        return "label"
    if value not in get_args(Mode):
        raise ConfigError(f"mode {value!r}; use label or review")
    return value  # type: ignore[return-value]


def scale_of(steps: int) -> tuple[float, ...]:
    """Return scores evenly from 0 to 1; raises `ConfigError` unless 2 to 5 steps, one per key."""
    if not 2 <= steps <= 5:
        raise ConfigError(f"--steps {steps}: use 2 to 5")
    return tuple(round(i / (steps - 1), 4) for i in range(steps))


class LabelService:
    """Answers the pages of all annotators.

    Example:
        >>> viewer = RecordViewer(open_corpus(["corpus.jsonl"], "images"))
        >>> items = CorpusItems(viewer.dataset, range(len(viewer.dataset)), viewer.lock)
        >>> queue, store = LabelQueue(items, ["ann"]), JudgementStore("labels", ["ann"])
        >>> service = LabelService(viewer, queue, store)
        >>> view = service.start("ann")
        >>> view = service.judge("ann", view.item.key, "accept", qa_score=1.0, r_score=0.5)

    Args:
        scale: possible scores, ascending.
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

    def start(self, annotator: str, mode: Mode = "label") -> LabelView:
        """Return the first record without a judgement, or the first on which people differ.

        Raises:
            ConfigError: no such annotator.
        """
        self._check(annotator, None)
        return self._next(annotator, None, mode)

    def back(self, annotator: str, key: str | None, mode: Mode = "label") -> LabelView:
        """Return the record before `key` (None: the end of the queue)."""
        here = self._check(annotator, key)
        if mode == "review":
            rank = self._rank(annotator, key)
            items = self._differing(annotator)[0]
            item = next((i for n, i in reversed(items) if rank is None or n < rank), None)
        else:
            item = self.queue.before(annotator, key)
        if item is None:
            return self._view(annotator, here, mode=mode, message="This is the first record.")
        return self._view(annotator, item, mode=mode)

    def jump(self, annotator: str, text: str, mode: Mode = "label") -> LabelView:
        """Return the record of a number in the queue (from 1), a key, or a record's id."""
        self._check(annotator, None)
        item = self.queue.named(annotator, text.strip())
        if item is not None:
            return self._view(annotator, item, mode=mode)
        unread = "" if self.queue.items.is_whole else "; the corpus is still being read"
        message = f"No record {text.strip()[:80]!r} in the queue of {annotator}{unread}."
        view = self._next(annotator, None, mode)
        return dataclasses.replace(view, message=message)

    def judge(
        self,
        annotator: str,
        key: str | None,
        verdict: str | None,
        *,
        qa_score: float | None = None,
        r_score: float | None = None,
        seconds: float | None = None,
        comment: str = "",
        mode: Mode = "label",
    ) -> LabelView:
        """Save a judgement and return the next record; with a `message` where something lacks.

        Raises:
            ConfigError: an annotator or a record that is not there.
        """
        item = self._check(annotator, key)
        if item is None:
            return self._next(annotator, None, mode)
        comment = comment.strip()
        lacking = self._lacking(item, verdict, qa_score, r_score, comment)
        if lacking:
            message = f"Not saved yet: {lacking}."
            return self._view(annotator, item, mode=mode, message=message)
        self._save(
            annotator,
            item,
            verdict=verdict,  # checked by _lacking
            qa_score=qa_score,
            r_score=r_score if item.has_rationale else None,
            seconds=None if seconds is None else round(seconds, 1),
            comment=comment,
        )
        return self._next(annotator, item.key, mode)

    def skip(
        self, annotator: str, key: str | None, *, comment: str = "", mode: Mode = "label"
    ) -> LabelView:
        """Leave a record out of the annotator's queue and return the next one.

        A judged record keeps its judgement, and the one after it is shown; `review` saves nothing.
        """
        item = self._check(annotator, key)
        if item is None or mode == "review":
            return self._next(annotator, key, mode)
        earlier = self.store.file(annotator).latest().get(item.key)
        if earlier is not None and earlier.verdict != "skip":
            beside = self.queue.after(annotator, item.key)
            return self._view(annotator, beside) if beside else self._next(annotator, item.key)
        self._save(annotator, item, verdict="skip", comment=comment.strip()[:COMMENT_LENGTH])
        return self._next(annotator, item.key)

    def agreement(self) -> dict[str, Any]:
        """Return the agreement so far; see `agreement_report`."""
        judged = self.store.labels()
        return {**agreement_report(judged), "differing": len(differing(judged))}

    def _check(self, annotator: str, key: str | None) -> LabelItem | None:
        self.store.file(annotator)
        item = None if key is None else self.queue.item(annotator, key)
        if key is not None and item is None:
            raise ConfigError(f"record {key} is not in the queue of {annotator}")
        return item

    def _rank(self, annotator: str, key: str | None) -> int | None:
        return None if key is None else self.queue.rank(annotator, key)

    def _differing(self, annotator: str) -> tuple[list[tuple[int, LabelItem]], int]:
        """Return (rank, item) of records on which people differ, and how many more there are."""
        judged = self.store.labels()
        keys = differing(judged)
        items = []
        for key in keys:
            row = next(j[key].row for j in judged.values() if key in j)
            rank = self.queue.rank(annotator, key, row)
            item = self.queue.item(annotator, key)
            if rank is not None and item is not None:
                items.append((rank, item))
        items.sort(key=lambda pair: pair[0])
        return items, len(keys) - len(items)

    def _lacking(
        self,
        item: LabelItem,
        verdict: str | None,
        qa_score: float | None,
        r_score: float | None,
        comment: str,
    ) -> str:
        """Return the reason that a judgement cannot be saved, or nothing."""
        if verdict not in (*LABELS, "unsure"):
            return "choose accept, reject or unsure"
        for score in (qa_score, r_score):
            if score is not None and score not in self.scale:
                raise ConfigError(f"score {score}; use one of {self.scale}")
        if len(comment) > COMMENT_LENGTH:
            return f"the comment has {len(comment):,} characters, {COMMENT_LENGTH:,} are the most"
        if verdict == "unsure":
            return ""
        if self.need_scores and qa_score is None:
            return "rate question and answer"
        if self.need_scores and item.has_rationale and r_score is None:
            return "rate the rationale"
        return ""

    def _save(self, annotator: str, item: LabelItem, **values: Any) -> None:
        judgement = Judgement(
            key=item.key,
            annotator=annotator,
            time=now(),
            instance=item.instance,
            row=item.index,
            **values,
        )
        self.store.file(annotator).append(judgement)

    def _next(self, annotator: str, after: str | None, mode: Mode = "label") -> LabelView:
        if mode == "label":
            done = self.store.file(annotator).latest()
            after = after or self._last(annotator)
            return self._view(annotator, self.queue.following(annotator, done, after))
        items = [pair for pair in self._differing(annotator)[0] if pair[1].key != after]
        here = self._rank(annotator, after)
        later = [pair for pair in items if here is not None and pair[0] > here]
        item = next((item for _, item in later or items), None)
        return self._view(annotator, item, mode=mode)

    def _last(self, annotator: str) -> str | None:
        """Return the record judged last; the search of an unread corpus starts there."""
        last = None if self.queue.items.is_whole else self.store.file(annotator).last()
        item = None if last is None else self.queue.item(annotator, last.key, last.row)
        return None if item is None else item.key

    def _view(
        self, annotator: str, item: LabelItem | None, *, mode: Mode = "label", message: str = ""
    ) -> LabelView:
        latest = self.store.file(annotator).latest()
        judgements: tuple[Judgement, ...] = ()
        counts = 0, 0
        if mode == "review":
            items, elsewhere = self._differing(annotator)
            counts = len(items), elsewhere
            everybody = self.store.judgements().values()
            judgements = tuple(mine[item.key] for mine in everybody if item and item.key in mine)
        shown = None
        if item is not None:
            try:
                shown = self.viewer.show(item.index)
            except RecordError as error:  # the file changed under us
                message = f"{message} {error.reason}".strip()
        rank = None if item is None else self.queue.rank(annotator, item.key)
        return LabelView(
            annotator=annotator,
            progress=self.queue.progress(annotator, latest),
            item=item,
            shown=shown,
            place=0 if rank is None else rank + 1,
            earlier=latest.get(item.key) if item else None,
            message=message,
            mode=mode,
            judgements=judgements,
            differing=counts,
        )
