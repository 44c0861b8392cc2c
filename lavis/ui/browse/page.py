"""The browser page: components, events and the download; `service.py` answers.

Each event maps an address to everything that it shows. The page's script (`browse.js`) changes
the address on a link or a button, and goes back with the browser.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from lavis.common.errors import ConfigError
from lavis.ui.browse.address import Address
from lavis.ui.browse.service import BrowseService, View
from lavis.ui.markup import render
from lavis.ui.serve import load_gradio

_HERE = "() => window.lvBrowse.here()"
_BOUNDS = (
    ("Score from", "score_from"),
    ("Score to", "score_to"),
    ("Regions from", "regions_from"),
    ("Regions to", "regions_to"),
)
_COMPARED_BOUNDS = (
    ("Difference from", "difference_from"),
    ("Difference to", "difference_to"),
)


def build_page(service: BrowseService, title: str) -> Any:
    """Return the page (`gradio.Blocks`)."""
    gr = load_gradio()
    with gr.Blocks(title=f"Browse {title}", analytics_enabled=False) as page:
        gr.HTML(render("browse_filters"), elem_id="filters")
        fields = _fields(gr, service)
        with gr.Row(elem_classes="lv-row"):
            fields |= _bounds(gr, service)
            find = gr.Button("Find", variant="primary", elem_id="find", min_width=110)
            save = gr.Button(
                "Save on this machine",
                elem_id="export",
                min_width=110,
                visible=service.out is not None,
            )
        parts = [gr.HTML(elem_id=name) for name in ("line", "facets", "cards")]
        with gr.Row(elem_classes="lv-row"):
            before = gr.Button("‹ Previous", elem_id="previous", min_width=80)
            number = gr.Number(
                value=1, label="Page", precision=0, minimum=1, elem_id="number", min_width=80
            )
            after = gr.Button("Next ›", elem_id="next", min_width=80)
        detail = gr.HTML(
            elem_id="detail", js_on_load="watch('value', () => window.lvBrowse.detail(element));"
        )
        # Not shown; the script presses these where the address has changed.
        address = gr.Textbox(visible="hidden", elem_id="address")
        go = gr.Button("Show the address", visible="hidden", elem_id="go")
        show = gr.Button("Show the record", visible="hidden", elem_id="show")
        shown = [number, *parts, detail, address]
        events = _Events(service)
        page.load(events.go, [address], [*fields.values(), *shown], js=_HERE, api_name="load")
        quiet: dict[str, Any] = {"trigger_mode": "always_last", "show_progress": "hidden"}
        everything = [*fields.values(), *shown]
        go.click(events.go, [address], everything, js=_HERE, api_name="go", **quiet)
        show.click(service.detail, [address], [detail], js=_HERE, api_name="detail", **quiet)
        _connect_fields(events, fields, find, shown, address)
        number.submit(None, [number], None, js="(page) => window.lvBrowse.turn(page)")
        before.click(None, None, None, js="() => window.lvBrowse.step(-1)")
        after.click(None, None, None, js="() => window.lvBrowse.step(1)")
        save.click(service.export, [address], [parts[0]], js=_HERE, api_name="export")
    return page


def _fields(gr: Any, service: BrowseService) -> dict[str, Any]:
    """Return the components of words, sources and order by name."""
    with gr.Row(equal_height=True):
        words = gr.Textbox(
            label="Words",
            placeholder='all must be there; "a phrase", begin*, -without',
            max_lines=1,
            scale=4,
            min_width=220,
            elem_id="words",
        )
        source = gr.Dropdown(
            sorted(service.query.index.columns.sources),
            label="Sources",
            multiselect=True,
            scale=3,
            value=[],
            elem_id="source",
        )
        order = gr.Dropdown(
            service.orders, value="file", label="Order", scale=2, elem_id="order", min_width=180
        )
    return {"words": words, "source": source, "order": order}


def _bounds(gr: Any, service: BrowseService) -> dict[str, Any]:
    """Return the components of bounds by name."""
    bounds = _BOUNDS + (_COMPARED_BOUNDS if service.compared is not None else ())
    return {
        name: gr.Textbox(
            label=label,
            placeholder="any",
            elem_id=name.replace("_", "-"),
            max_lines=1,
            min_width=90,
        )
        for label, name in bounds
    }


def _connect_fields(
    events: _Events, fields: dict[str, Any], find: Any, shown: list[Any], address: Any
) -> None:
    """Connect each field: a change updates the address and selects anew, from page 1."""
    names = list(fields)

    def first(*values: Any) -> list[Any]:
        return events.find(dict(zip(names, values, strict=True)))

    events_of = [find.click, fields["source"].input, fields["order"].input]
    events_of += [field.submit for name, field in fields.items() if name not in ("source", "order")]
    for place, listen in enumerate(events_of):
        event = listen(first, list(fields.values()), shown, api_name=False if place else "find")
        event.then(None, [address], None, js="(query) => window.lvBrowse.arrived(query)")


class _Events:
    """What the page's events return: the values of their components."""

    def __init__(self, service: BrowseService) -> None:
        self.service = service

    def go(self, query: str | None) -> list[Any]:
        """Return values of all fields, then those of `find`."""
        view, address = self.service.show(query), Address.read(query)
        orders = [name for _, name in self.service.orders]
        known = self.service.query.index.columns.sources
        bounds = [getattr(address, name) for _, name in _BOUNDS]
        if self.service.compared is not None:
            bounds += [getattr(address, name) for _, name in _COMPARED_BOUNDS]
        order = address.order if address.order in orders else "file"
        sources = [name for name in address.source if name in known]
        return [address.words, sources, order, *bounds, *self._values(view)]

    def find(self, values: dict[str, Any]) -> list[Any]:
        """Return the first page of what the fields select."""
        texts: dict[str, Any] = {name: value or "" for name, value in values.items()}
        texts["source"] = tuple(texts["source"] or ())
        texts["order"] = texts["order"] or "file"
        return self._values(self.service.show(Address(**texts).write()))

    @staticmethod
    def _values(view: View) -> list[Any]:
        return [view.number, view.line, view.facets, view.cards, view.detail, view.address]


def download_route(service: BrowseService) -> Any:
    """Return the route `/download?ADDRESS` of a selection (`starlette.routing.Route`).

    Lines are sent as they are read, so that no selection needs much memory or a file on this
    machine; a browser notices a truncated download.
    """
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route

    def download(request: Request) -> Response:
        try:
            selection = Address.read(request.url.query).filter()
            service.query.select(selection)
        except ConfigError as error:
            return PlainTextResponse(f"{error}\n", status_code=400)
        name = quote(service.file_name(selection))
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return StreamingResponse(
            service.lines(selection), media_type="application/jsonl; charset=utf-8", headers=headers
        )

    return Route("/download", download)
