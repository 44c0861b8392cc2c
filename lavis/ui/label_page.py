"""The labelling page: components and events only; `labelling.py` decides what happens."""

from __future__ import annotations

import time
from typing import Any

from lavis.common.errors import ConfigError
from lavis.ui import markup
from lavis.ui.labelling import LabelDesk, LabelView
from lavis.ui.serve import load_gradio

_KEYS = (
    '<p class="lv-keys"><kbd>A</kbd> accept <kbd>X</kbd> reject · <kbd>1</kbd>–<kbd>{steps}</kbd> '
    "question and answer · <kbd>Q</kbd>–<kbd>{last}</kbd> rationale · <kbd>Enter</kbd> save · "
    "<kbd>←</kbd> back · <kbd>→</kbd> skip</p>"
)


def score_choices(scale: tuple[float, ...]) -> list[tuple[str, float]]:
    """Return (label, score) pairs: the ends say what they mean."""
    ends = {0: "wrong", len(scale) - 1: "right"}
    if len(scale) == 3:
        ends[1] = "partly"
    return [(f"{i + 1} {ends.get(i, '')}".strip(), score) for i, score in enumerate(scale)]


def build_page(desk: LabelDesk) -> Any:
    """Return the page (`gradio.Blocks`); `?annotator=name` in the address chooses who labels."""
    gr = load_gradio()
    choices = score_choices(desk.scale)
    keys = _KEYS.format(steps=len(choices), last="QWERT"[len(choices) - 1])
    with gr.Blocks(title="Label question, answer, rationale", analytics_enabled=False) as page:
        key, since = gr.State(None), gr.State(0.0)
        with gr.Row(elem_classes="lv-row"):
            annotator = gr.Dropdown(
                desk.annotators,
                value=desk.annotators[0],
                label="Annotator",
                elem_id="annotator",
                scale=1,
                min_width=140,
            )
            progress = gr.HTML(elem_id="progress", scale=5)
        with gr.Row():
            with gr.Column(scale=6):
                picture = gr.HTML(elem_id="picture")
            with gr.Column(scale=5):
                text = gr.HTML(elem_id="text")
                verdict = gr.Radio(["accept", "reject"], label="Verdict", elem_id="verdict")
                qa_score = gr.Radio(choices, label="Question and answer", elem_id="qa-score")
                r_score = gr.Radio(choices, label="Rationale", elem_id="r-score")
                with gr.Row():
                    back = gr.Button("Back", elem_id="back", min_width=60)
                    skip = gr.Button("Skip", elem_id="skip", min_width=60)
                    save = gr.Button(
                        "Save and next", variant="primary", elem_id="save", min_width=150
                    )
                gr.HTML(keys)
        shown = [annotator, key, since, progress, picture, text, verdict, qa_score, r_score]
        events = _Events(desk, gr)
        who = [annotator, key]
        judged = [*who, since, verdict, qa_score, r_score]

        def load(request: Any) -> list[Any]:
            name = request.query_params.get("annotator") if request else None
            return events.start(name if name in desk.annotators else desk.annotators[0])

        load.__annotations__["request"] = gr.Request  # how Gradio knows to pass it
        page.load(load, None, shown, api_name="load")
        annotator.input(events.start, [annotator], shown, api_name="start")
        save.click(events.judge, judged, shown, api_name="judge")
        skip.click(events.skip, who, shown, api_name="skip")
        back.click(events.back, who, shown, api_name="back")
    return page


class _Events:
    """What the page's events do; each returns the values of all components."""

    def __init__(self, desk: LabelDesk, gradio: Any) -> None:
        self.desk = desk
        self.gr = gradio

    def start(self, annotator: str) -> list[Any]:
        return self._values(self.desk.start(annotator))

    def skip(self, annotator: str, key: str | None) -> list[Any]:
        return self._values(self.desk.skip(annotator, key))

    def back(self, annotator: str, key: str | None) -> list[Any]:
        return self._values(self.desk.back(annotator, key))

    def judge(
        self,
        annotator: str,
        key: str | None,
        since: float,
        verdict: str | None,
        qa_score: float | None,
        r_score: float | None,
    ) -> list[Any]:
        try:
            view = self.desk.judge(
                annotator,
                key,
                verdict,
                qa_score=qa_score,
                r_score=r_score,
                seconds=time.monotonic() - since,
            )
        except (ConfigError, OSError) as error:
            raise self.gr.Error(f"Not saved: {error}") from None
        values = self._values(view)
        if view.message:  # keep what was chosen so far
            values[2], values[6:] = since, [verdict, qa_score, r_score]
        return values

    def _values(self, view: LabelView) -> list[Any]:
        said = view.earlier if view.earlier and view.earlier.verdict != "skip" else None
        return [
            view.annotator,
            view.item.key if view.item else None,
            time.monotonic(),
            markup.label_progress(view),
            markup.label_picture(view),
            markup.label_text(view),
            said.verdict if said else None,
            said.qa_score if said else None,
            self.gr.update(
                value=said.r_score if said else None,
                visible=view.item is None or view.item.has_rationale,
            ),
        ]
