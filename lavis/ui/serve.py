"""Commands that serve a page on this machine only: no telemetry, share link or foreign font."""

from __future__ import annotations

import argparse
import logging
import os
import socket
from collections.abc import Sequence
from typing import Any

from lavis.common.errors import ConfigError
from lavis.datasets.lck.dataset import LckDataset
from lavis.ui.shown import open_corpus

HOST = "127.0.0.1"
_HOSTS = [HOST, "localhost"]


def page_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser of the flags that name a corpus and the page's port."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("corpus", nargs="+", metavar="CORPUS", help="jsonl, .gz, .zst, parquet")
    parser.add_argument("--image-root", required=True, help="folder that `image` is relative to")
    parser.add_argument("--region-mapping", help="JSONL of {image, region_locations}")
    parser.add_argument("--cache-dir", help="where indexes and unpacked files are kept")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860")
    return parser


def named_corpus(args: argparse.Namespace) -> LckDataset:
    """Open the corpus named by the flags of `page_parser`; log warnings and errors."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    return open_corpus(
        args.corpus, args.image_root, region_mapping=args.region_mapping, cache_dir=args.cache_dir
    )


def load_gradio() -> Any:
    """Return the gradio package, telemetry off; raises `ConfigError` where it is not installed."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio
    except ImportError as error:
        raise ConfigError(f"the page needs Gradio ({error}): pip install '.[ui]'") from None
    return gradio


def check_ready(port: int | None) -> None:
    """Raise `ConfigError`, before long work, where Gradio is missing or the port is taken."""
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
    # Another site's page could reach this one under its own host name (DNS rebinding).
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
