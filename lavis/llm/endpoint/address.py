"""The address of a server: what is valid, and its normal form."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from lavis.common.errors import ConfigError

OPENAI_URL = "https://api.openai.com/v1"


def check_url(url: str) -> None:
    """Raise `ConfigError` for a base URL that no request can go to; never shows a secret."""
    example = "such as http://host:8000/v1"
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ConfigError(
            f"base_url: has a blank or a line break in it; write an address {example}"
        )
    try:
        parts = urlsplit(url)
        secret = parts.username or parts.password
    except ValueError:
        raise ConfigError(f"base_url: is no address; write one {example}") from None
    if secret:
        raise ConfigError(
            "base_url: no user, password or query; put the key into the environment variable that "
            "api_key_env names"
        )
    if parts.query or parts.fragment:
        raise ConfigError(
            "base_url: no query or fragment; write ?api-version=2024-10-21 as "
            "extra_query={api-version: '2024-10-21'}, and put a key into the environment variable "
            "that api_key_env names"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"base_url: write http:// or https:// and a host, {example}")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ConfigError(f"base_url: the port is no number from 1 to 65535; write one {example}")
    for ending in ("/chat/completions", "/completions", "/embeddings"):
        if parts.path.rstrip("/").endswith(ending):
            raise ConfigError(f"base_url: leave out {ending}, which is added; write one {example}")


def normal_url(url: str) -> str:
    """Return a URL in normal form: lower-case host, no default port, no slash at the end."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    host = f"[{host}]" if ":" in host else host
    standard = {"http": 80, "https": 443}.get(parts.scheme)
    port = "" if parts.port in (None, standard) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}{re.sub('/+', '/', parts.path).rstrip('/')}"
