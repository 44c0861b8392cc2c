"""The labelling page: components and events only; `labelling.py` decides what happens.

A click is bound to the record that the page showed: the page sends back the `token` of its view,
so a judgement never goes to another record or person, however slow the answers are.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lavis.common.errors import ConfigError
from lavis.ui import markup
from lavis.ui.label.labelling import LabelDesk, LabelView, read_mode, read_token
from lavis.ui.serve import load_gradio

logger = logging.getLogger(__name__)

VERDICTS = ["accept", "reject", "unsure"]


def score_choices(scale: tuple[float, ...]) -> list[tuple[str, float]]:
    """Return (label, score) pairs: the ends say what they mean."""
    ends = {0: "wrong", len(scale) - 1: "right"}
    if len(scale) == 3:
        ends[1] = "partly"
    return [(f"{i + 1} {ends.get(i, '')}".strip(), score) for i, score in enumerate(scale)]


@dataclass(frozen=True)
class _Parts:
    """The page's components."""

    annotator: Any
    review: Any
    progress: Any
    image: Any
    text: Any
    verdict: Any
    qa_score: Any
    r_score: Any
    comment: Any
    back: Any
    skip: Any
    save: Any
    target: Any
    go: Any
    agreement: Any
    token: Any
    key: Any
    since: Any

    @property
    def shown(self) -> list[Any]:
        """What every event fills."""
        first = [self.annotator, self.key, self.since, self.progress, self.image, self.text]
        return [
            *(*first, self.verdict, self.qa_score, self.r_score),
            *(self.comment, self.review, self.token, self.skip, self.target),
        ]


def build_page(desk: LabelDesk) -> Any:
    """Return the page (`gradio.Blocks`); the address says who labels which record.

    `?annotator=name` chooses the person, `record=key` the record and `mode=review` what is shown.
    """
    gr = load_gradio()
    with gr.Blocks(title="Label question, answer, rationale", analytics_enabled=False) as page:
        parts = _lay_out(gr, desk)
        _connect(gr, page, parts, _Events(desk, gr))
    return page


def _lay_out(gr: Any, desk: LabelDesk) -> _Parts:
    """Make the components."""
    choices = score_choices(desk.scale)
    key, since = gr.State(None), gr.State(0.0)
    with gr.Row(elem_classes="lv-row", elem_id="head"):
        annotator = gr.Dropdown(
            desk.annotators,
            value=desk.annotators[0],
            label="Annotator",
            elem_id="annotator",
            scale=1,
            min_width=130,
        )
        review = gr.Checkbox(
            label="Differences only",
            elem_id="review",
            container=False,
            scale=1,
            min_width=150,
        )
        progress = gr.HTML(elem_id="progress", scale=4, min_width=200)
    with gr.Row(elem_classes="lv-linked", elem_id="record"):
        with gr.Column(scale=6, min_width=300):
            image = gr.HTML(elem_id="picture")
        with gr.Column(scale=5, min_width=300):
            text = gr.HTML(elem_id="text")
            verdict = gr.Radio(VERDICTS, label="Verdict", elem_id="verdict")
            qa_score = gr.Radio(choices, label="Question and answer", elem_id="qa-score")
            r_score = gr.Radio(choices, label="Rationale", elem_id="r-score")
            comment = gr.Textbox(
                "", label="Comment", placeholder="optional", lines=1, max_lines=4, elem_id="comment"
            )
            with gr.Row(elem_id="actions"):
                back = gr.Button("Back", elem_id="back", min_width=60)
                skip = gr.Button("Skip", elem_id="skip", min_width=60)
                save = gr.Button("Save and next", variant="primary", elem_id="save", min_width=130)
    with gr.Row(elem_classes="lv-row", elem_id="tools"):
        target = gr.Textbox(
            "",
            label="Go to record",
            placeholder="number, id or key",
            max_lines=1,
            elem_id="target",
            scale=2,
            min_width=160,
        )
        go = gr.Button("Go", elem_id="go", min_width=60, scale=0)
        gr.HTML(markup.label_help(len(choices)), scale=6, min_width=300)
    with gr.Accordion("Agreement so far", open=False, elem_id="agreement-fold"):
        agreement = gr.HTML(elem_id="agreement")
    token = gr.Textbox("", visible="hidden", elem_id="token", label="shown record")
    return _Parts(**{k: v for k, v in locals().items() if k in _Parts.__dataclass_fields__})


def _connect(gr: Any, page: Any, parts: _Parts, events: _Events) -> None:
    """Tie events to the desk.

    Clicks that come before an answer are all sent (`multiple`), one after another.
    """
    shown = parts.shown
    who = [parts.annotator, parts.key, parts.review, parts.token]
    judged = [parts.annotator, parts.key, parts.since, parts.verdict, parts.qa_score]
    judged += [parts.r_score, parts.comment, parts.review, parts.token]
    each: dict[str, Any] = {"trigger_mode": "multiple", "show_progress": "hidden"}

    def load(request: Any) -> list[Any]:
        return events.load(dict(request.query_params) if request else {})

    load.__annotations__["request"] = gr.Request  # how Gradio knows to pass it
    start = [parts.annotator, parts.review]
    happened = [
        page.load(load, None, shown, api_name="load"),
        parts.annotator.input(events.start, start, shown, api_name="start"),
        parts.review.input(events.start, start, shown, api_name=False),
        parts.save.click(events.judge, judged, shown, api_name="judge", **each),
        parts.skip.click(events.skip, [*who, parts.comment], shown, api_name="skip", **each),
        parts.back.click(events.back, who, shown, api_name="back", **each),
        parts.go.click(events.jump, [*who, parts.target], shown, api_name="jump", **each),
        parts.target.submit(events.jump, [*who, parts.target], shown, api_name=False, **each),
    ]
    for event in happened:
        event.then(
            events.agreement, None, [parts.agreement], api_name=False, show_progress="hidden"
        )


class _Events:
    """What the page's events do; each returns the values of `_Parts.shown`."""

    def __init__(self, desk: LabelDesk, gradio: Any) -> None:
        self.desk = desk
        self.gr = gradio
        self._serial = itertools.count(1)  # tells the page that an answer came

    def load(self, asked: dict[str, str]) -> list[Any]:
        """Show what the address says; a name that is nobody's is refused."""
        name = asked.get("annotator") or self.desk.annotators[0]
        record = asked.get("record")
        try:
            mode = read_mode(asked.get("mode"))
            view = self.desk.jump(name, record, mode) if record else self.desk.start(name, mode)
        except (ConfigError, OSError) as error:
            return self._refuse(str(error))
        return self._values(view)

    def agreement(self) -> str:
        """Show how far people agree so far."""
        try:
            return markup.label_agreement(self.desk.agreement())
        except OSError as error:
            return markup.message(f"Agreement is not known: {error}", "warning")

    def start(self, annotator: str | None, review: bool = False) -> list[Any]:
        """Show an annotator's next record."""
        return self._act(
            (annotator, None, review, ""), lambda name, mode, _: self.desk.start(name, mode)
        )

    def skip(
        self,
        annotator: str | None,
        key: str | None,
        review: bool = False,
        token: str = "",
        comment: str = "",
    ) -> list[Any]:
        """Pass over a record."""
        return self._act(
            (annotator, key, review, token),
            lambda name, mode, key: self.desk.skip(name, key, comment=comment, mode=mode),
        )

    def back(
        self, annotator: str | None, key: str | None, review: bool = False, token: str = ""
    ) -> list[Any]:
        """Show the record before."""
        return self._act(
            (annotator, key, review, token), lambda name, mode, key: self.desk.back(name, key, mode)
        )

    def jump(
        self,
        annotator: str | None,
        key: str | None,
        review: bool = False,
        token: str = "",
        target: str = "",
    ) -> list[Any]:
        """Show a record by number, id or key; without one, the next that is not judged."""
        if not (target or "").strip():
            return self.start(annotator, review)
        return self._act(
            (annotator, key, review, token),
            lambda name, mode, _: self.desk.jump(name, target, mode),
        )

    def judge(
        self,
        annotator: str | None,
        key: str | None,
        since: float,
        verdict: str | None,
        qa_score: float | None,
        r_score: float | None,
        comment: str = "",
        review: bool = False,
        token: str = "",
    ) -> list[Any]:
        """Save a judgement of the record that was shown."""
        said = [verdict, qa_score, r_score, comment or ""]
        return self._act(
            (annotator, key, review, token),
            lambda name, mode, key: self.desk.judge(
                name,
                key,
                verdict,
                qa_score=qa_score,
                r_score=r_score,
                seconds=time.monotonic() - since,
                comment=comment or "",
                mode=mode,
            ),
            keep=(since, said),
        )

    def _act(
        self,
        asked: tuple[str | None, str | None, bool, str],
        act: Callable[..., LabelView],
        keep: tuple[float, list[Any]] | None = None,
    ) -> list[Any]:
        """Do something for (annotator, key, review, token) and return what the page shows then.

        Args:
            keep: since when the record was shown and what was chosen, kept where it is not saved.
        """
        name, key, review, token = asked
        if token:
            key, owner = read_token(token)
            if owner and owner != name:
                view = self.desk.start(name or owner)
                message = f"Nothing was saved: the record shown was {owner}'s."
                return self._values(dataclasses.replace(view, message=message))
        try:
            view = act(name or "", "review" if review else "label", key)
        except ConfigError as error:
            if name not in self.desk.annotators:
                return self._refuse(str(error))
            raise self._error(error) from None
        except OSError as error:
            raise self._error(error) from None
        values = self._values(view)
        if keep is not None and view.message:
            values[2], values[6:10] = keep[0], keep[1]
        return values

    def _error(self, error: Exception) -> Exception:
        """Return what the page shows beside the record, which stays; one line in the log."""
        logger.warning("not saved: %s", error)
        return self.gr.Error(f"Not saved: {error}", print_exception=False)

    def _refuse(self, why: str) -> list[Any]:
        """Show nothing but who can label."""
        page = markup.label_refused(why, self.desk.annotators)
        empty = ["", page, "", None, None, None, "", False, "", "Skip", ""]
        return [self.gr.update(value=None), None, 0.0, *empty]

    def _values(self, view: LabelView) -> list[Any]:
        said = view.earlier if view.earlier and view.earlier.verdict != "skip" else None
        reviews = view.mode == "review"
        return [
            view.annotator,
            view.item.key if view.item else None,
            time.monotonic(),
            markup.label_progress(view),
            markup.label_image(view),
            markup.label_text(view, serial=next(self._serial)),
            said.verdict if said else None,
            said.qa_score if said else None,
            self.gr.update(
                value=said.r_score if said else None,
                visible=view.item is None or view.item.has_rationale,
            ),
            view.earlier.comment if view.earlier else "",
            reviews,
            view.token,
            "Next" if reviews or said else "Skip",
            "",
        ]
