"""The labelling page: components and events only; `service.py` holds the logic.

A click is bound to the record on the page, which sends back the `token` of its view, so a
judgement never goes to another record or person, however slow the answers are.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from lavis.common.errors import ConfigError
from lavis.ui import markup
from lavis.ui.label.service import LabelService, LabelView, read_mode, read_token
from lavis.ui.serve import load_gradio

logger = logging.getLogger(__name__)

VERDICTS = ["accept", "reject", "unsure"]


def score_choices(scale: tuple[float, ...]) -> list[tuple[str, float]]:
    """Return (label, score) pairs: the ends say what they mean."""
    ends = {0: "wrong", len(scale) - 1: "right"}
    if len(scale) == 3:
        ends[1] = "partly"
    return [(f"{i + 1} {ends.get(i, '')}".strip(), score) for i, score in enumerate(scale)]


# Outputs of every event, in this order; see `_Events._values`.
_FILLED = (
    *("annotator", "key", "since", "progress", "image", "text", "verdict", "qa_score", "r_score"),
    *("comment", "review", "token", "skip", "target"),
)


def build_page(service: LabelService) -> Any:
    """Return the `gradio.Blocks`; the address may hold `?annotator=name&record=key&mode=review`."""
    gr = load_gradio()
    with gr.Blocks(title="Label question, answer, rationale", analytics_enabled=False) as page:
        parts = _lay_out(gr, service)
        _connect(gr, page, parts, _Events(service, gr))
    return page


def _lay_out(gr: Any, service: LabelService) -> SimpleNamespace:
    """Return the components by name."""
    choices = score_choices(service.scale)
    key, since = gr.State(None), gr.State(0.0)
    with gr.Row(elem_classes="lv-row", elem_id="head"):
        annotator = gr.Dropdown(
            service.store.annotators,
            value=service.store.annotators[0],
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
        gr.HTML(markup.render("label_help", steps=len(choices)), scale=6, min_width=300)
    with gr.Accordion("Agreement so far", open=False, elem_id="agreement-fold"):
        agreement = gr.HTML(elem_id="agreement")
    token = gr.Textbox("", visible="hidden", elem_id="token", label="shown record")
    return SimpleNamespace(
        **dict(annotator=annotator, review=review, progress=progress, image=image, text=text),
        **dict(verdict=verdict, qa_score=qa_score, r_score=r_score, comment=comment, back=back),
        **dict(skip=skip, save=save, target=target, go=go, agreement=agreement, token=token),
        **dict(key=key, since=since),
    )


def _connect(gr: Any, page: Any, parts: SimpleNamespace, events: _Events) -> None:
    """Tie events to components; clicks before an answer are all sent (`multiple`), in order."""
    shown = [getattr(parts, name) for name in _FILLED]
    who = [parts.annotator, parts.key, parts.review, parts.token]
    judged = [parts.annotator, parts.key, parts.since, parts.verdict, parts.qa_score]
    judged += [parts.r_score, parts.comment, parts.review, parts.token]
    each: dict[str, Any] = {"trigger_mode": "multiple", "show_progress": "hidden"}

    def load(request: Any) -> list[Any]:
        return events.load(dict(request.query_params) if request else {})

    load.__annotations__["request"] = gr.Request  # how Gradio knows to pass it
    start = [parts.annotator, parts.review]
    listeners = [
        page.load(load, None, shown, api_name="load"),
        parts.annotator.input(events.start, start, shown, api_name="start"),
        parts.review.input(events.start, start, shown, api_name=False),
        parts.save.click(events.judge, judged, shown, api_name="judge", **each),
        parts.skip.click(events.skip, [*who, parts.comment], shown, api_name="skip", **each),
        parts.back.click(events.back, who, shown, api_name="back", **each),
        parts.go.click(events.jump, [*who, parts.target], shown, api_name="jump", **each),
        parts.target.submit(events.jump, [*who, parts.target], shown, api_name=False, **each),
    ]
    for event in listeners:
        event.then(
            events.agreement, None, [parts.agreement], api_name=False, show_progress="hidden"
        )


class _Events:
    """What the page's events do; each returns the values of `_FILLED`."""

    def __init__(self, service: LabelService, gradio: Any) -> None:
        self.service = service
        self.gr = gradio
        self._serial = itertools.count(1)  # tells the page that an answer came

    def load(self, address: dict[str, str]) -> list[Any]:
        """Show what the address selects; an unknown annotator is refused."""
        name = address.get("annotator") or self.service.store.annotators[0]
        record = address.get("record")
        try:
            mode = read_mode(address.get("mode"))
            view = (
                self.service.jump(name, record, mode) if record else self.service.start(name, mode)
            )
        except (ConfigError, OSError) as error:
            return self._refuse(str(error))
        return self._values(view)

    def agreement(self) -> str:
        """Show the agreement so far."""
        try:
            return markup.render("label_agreement", report=self.service.agreement())
        except OSError as error:
            return markup.message(f"Agreement is not known: {error}", "warning")

    def start(self, annotator: str | None, review: bool = False) -> list[Any]:
        """Show an annotator's next record."""
        return self._act(
            (annotator, None, review, ""), lambda name, mode, _: self.service.start(name, mode)
        )

    def skip(
        self,
        annotator: str | None,
        key: str | None,
        review: bool = False,
        token: str = "",
        comment: str = "",
    ) -> list[Any]:
        """Skip a record."""
        return self._act(
            (annotator, key, review, token),
            lambda name, mode, key: self.service.skip(name, key, comment=comment, mode=mode),
        )

    def back(
        self, annotator: str | None, key: str | None, review: bool = False, token: str = ""
    ) -> list[Any]:
        """Show the record before."""
        return self._act(
            (annotator, key, review, token),
            lambda name, mode, key: self.service.back(name, key, mode),
        )

    def jump(
        self,
        annotator: str | None,
        key: str | None,
        review: bool = False,
        token: str = "",
        target: str = "",
    ) -> list[Any]:
        """Show a record by number, id or key; without one, the next unjudged one."""
        if not (target or "").strip():
            return self.start(annotator, review)
        return self._act(
            (annotator, key, review, token),
            lambda name, mode, _: self.service.jump(name, target, mode),
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
        return self._act(
            (annotator, key, review, token),
            lambda name, mode, key: self.service.judge(
                name,
                key,
                verdict,
                qa_score=qa_score,
                r_score=r_score,
                seconds=time.monotonic() - since,
                comment=comment or "",
                mode=mode,
            ),
            keep=(since, [verdict, qa_score, r_score, comment or ""]),
        )

    def _act(
        self,
        sent: tuple[str | None, str | None, bool, str],
        act: Callable[..., LabelView],
        keep: tuple[float, list[Any]] | None = None,
    ) -> list[Any]:
        """Do something for (annotator, key, review, token) and return what the page shows then.

        Args:
            keep: since when the record was shown and what was chosen, kept where it is not saved.
        """
        name, key, review, token = sent
        if token:
            key, owner = read_token(token)
            if owner and owner != name:
                view = self.service.start(name or owner)
                message = f"Nothing was saved: the record shown was {owner}'s."
                return self._values(dataclasses.replace(view, message=message))
        try:
            view = act(name or "", "review" if review else "label", key)
        except ConfigError as error:
            if name not in self.service.store.annotators:
                return self._refuse(str(error))
            raise self._error(error) from None
        except OSError as error:
            raise self._error(error) from None
        values = self._values(view)
        if keep is not None and view.message:
            values[2], values[6:10] = keep[0], keep[1]
        return values

    def _error(self, error: Exception) -> Exception:
        """Return the page's message beside the record, which stays; one line in the log."""
        logger.warning("not saved: %s", error)
        return self.gr.Error(f"Not saved: {error}", print_exception=False)

    def _refuse(self, why: str) -> list[Any]:
        """Show only who can label."""
        page = markup.render("label_refused", why=why, annotators=self.service.store.annotators)
        empty = ["", page, "", None, None, None, "", False, "", "Skip", ""]
        return [self.gr.update(value=None), None, 0.0, *empty]

    def _values(self, view: LabelView) -> list[Any]:
        judged = view.earlier if view.earlier and view.earlier.verdict != "skip" else None
        reviews = view.mode == "review"
        return [
            view.annotator,
            view.item.key if view.item else None,
            time.monotonic(),
            markup.render("label_progress", view=view),
            markup.render("label_picture", view=view),
            markup.render("label_text", view=view, serial=next(self._serial)),
            judged.verdict if judged else None,
            judged.qa_score if judged else None,
            self.gr.update(
                value=judged.r_score if judged else None,
                visible=view.item is None or view.item.has_rationale,
            ),
            view.earlier.comment if view.earlier else "",
            reviews,
            view.token,
            "Next" if reviews or judged else "Skip",
            "",
        ]
