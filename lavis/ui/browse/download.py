"""Where a browser downloads a selection: `download?` with the page's own address behind it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from lavis.common.errors import ConfigError
from lavis.ui.browse.address import Address
from lavis.ui.browse.desk import BrowseDesk


def download_route(desk: BrowseDesk) -> Any:
    """Return the route (`starlette.routing.Route`).

    Lines are sent as they are read, so that a selection of any size needs no memory and no file on
    this machine; a browser notices where they break off.
    """
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route

    def download(request: Request) -> Response:
        try:
            wanted = Address.read(request.url.query).filter()
            desk.query.select(wanted)
        except ConfigError as error:
            return PlainTextResponse(f"{error}\n", status_code=400)
        name = quote(desk.file_name(wanted))
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return StreamingResponse(
            desk.lines(wanted), media_type="application/jsonl; charset=utf-8", headers=headers
        )

    return Route("/download", download)
