"""Start a Gradio page for this machine only: no telemetry, no share link, no foreign fonts."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any

from lavis.common.errors import ConfigError

HOST = "127.0.0.1"
_HOSTS = [HOST, "localhost"]


def load_gradio() -> Any:
    """Return the gradio package with its telemetry off.

    Raises:
        ConfigError: not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio
    except ImportError as error:
        raise ConfigError(f"the page needs Gradio ({error}): pip install '.[ui]'") from None
    return gradio


def check_ready(port: int | None) -> None:
    """Find out, before work that takes long, that a page can be served at all.

    Raises:
        ConfigError: Gradio is not installed, or the port is taken.
    """
    load_gradio()
    if port is None:
        return
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            probe.bind((HOST, port))
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--port {port}: {getattr(error, 'strerror', None) or error}") from None


def serve(
    page: Any,
    *,
    port: int | None,
    css: str,
    head: str = "",
    routes: Sequence[Any] = (),
    block: bool = True,
) -> tuple[Any, str]:
    """Serve a page on 127.0.0.1 and return the page and its address.

    Args:
        page: `gradio.Blocks`.
        port: None takes the first free one from 7860.
        routes: of starlette, beside the page's own.
        block: wait until interrupted.

    Raises:
        ConfigError: the port is taken.
    """
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    gradio = load_gradio()
    theme = gradio.themes.Default(
        primary_hue="indigo",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    # Another site's page could reach this one under a name of its own (DNS rebinding).
    guard = Middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS)
    try:
        _, address, _ = page.launch(
            server_name=HOST,
            server_port=port,
            share=False,
            inbrowser=False,
            prevent_thread_lock=True,
            quiet=True,
            footer_links=[],
            ssr_mode=False,
            enable_monitoring=False,
            mcp_server=False,
            run_history=False,
            max_file_size=0,
            app_kwargs={"middleware": [guard], "routes": list(routes)},
            theme=theme,
            css=css,
            head=head,
        )
    except OSError as error:
        raise ConfigError(f"--port {port}: {error}") from None
    print(f"open {address} (Ctrl-C ends it)", flush=True)
    if block:
        page.block_thread()
    return page, address
