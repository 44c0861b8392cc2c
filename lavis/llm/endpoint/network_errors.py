"""Network errors as sentences that name address and remedy."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

from lavis.common.errors import printable
from lavis.llm.endpoint.failures import Cost, Problem

CONNECT_SECONDS = 10.0  # a server that lives takes a connection at once, however busy it is
# By name: the SDK's HTTP library has changed, its names have not.
_UNSENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "LocalProtocolError",
           "UnsupportedProtocol", "InvalidURL")  # fmt: skip


def network_problem(error: BaseException, url: str, seconds: float) -> Problem:
    """Return the meaning of an SDK or HTTP exception, causes attached; attempts last `seconds`."""
    causes = list(_causes(error))
    names = [type(cause).__name__ for cause in causes]
    cost: Cost = "unsent" if any(name in _UNSENT for name in names) else "unknown"
    place, detail = _place(url), _detail(causes)
    if "TooManyRedirects" in names:
        reason = f"redirect: {place} sends requests in a circle; look at llm.base_url"
        return Problem("fatal", reason)
    requested = _requested_places(causes)
    if requested and requested[-1] != requested[0]:
        place = f"{requested[-1]} (redirected from {place})"
    proxy = _proxy(url)
    fails = {"ConnectError", "ConnectTimeout", "ProxyError"} & set(names)
    if proxy and fails and not any(isinstance(cause, ssl.SSLError) for cause in causes):
        reason = (
            f"proxy: no connection to {place} through {proxy} ({detail}); look at the environment "
            "variables HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY"
        )
        return Problem("transient", reason, cost="unsent")
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY" in str(cause):
            why = getattr(cause, "verify_message", "") or detail
            reason = (
                f"certificate: that of {place} is not trusted here ({why}); name its authority's "
                "file in the environment variable SSL_CERT_FILE, or mend llm.base_url"
            )
            return Problem("stopped", reason, cost="unsent")
        if isinstance(cause, ssl.SSLError) and cost == "unsent":
            reason = f"TLS: no secure connection to {place} ({cause.reason or detail})"
            if cause.reason and ("WRONG_VERSION" in cause.reason or "HTTP" in cause.reason):
                reason += "; a server without TLS wants http:// in llm.base_url"
                return Problem("fatal", reason, cost="unsent")
            return Problem("transient", reason, cost="unsent")
        if isinstance(cause, socket.gaierror):
            reason = f"DNS: the name of {place} is not known ({detail}); look at llm.base_url"
            return Problem("transient", reason, cost="unsent")
    if "ConnectionRefusedError" in names:
        reason = f"refused: nothing listens at {place}; start the server, or mend llm.base_url"
        return Problem("transient", reason, cost="unsent")
    if "ConnectTimeout" in names:
        waited = min(CONNECT_SECONDS, seconds)
        # The library's bound on connecting includes the lookup of the name.
        reason = f"no connection: {place} was not found and reached within {waited:g} s"
        return Problem("transient", reason, cost="unsent")
    if any(name in ("UnsupportedProtocol", "InvalidURL", "LocalProtocolError") for name in names):
        return Problem("fatal", f"address: {place} cannot be asked ({detail})", cost="unsent")
    if any("Timeout" in name for name in names):
        return Problem("transient", f"timeout: no answer within {seconds:g} s", cost=cost)
    if cost == "unsent":
        return Problem("transient", f"no connection: to {place} ({detail})", cost=cost)
    return Problem("transient", f"connection cut: by {place} ({detail})", cost=cost)


def is_network_error(error: BaseException) -> bool:
    """Return whether an exception is the SDK's or its HTTP library's, not a bug of ours."""
    import openai

    return isinstance(
        error, openai.OpenAIError | OSError | asyncio.TimeoutError
    ) or type(error).__module__.startswith(("httpx", "httpcore"))  # fmt: skip


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and its causes, those of groups included."""
    waiting, seen = [error], set()
    while waiting:
        cause = waiting.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting += getattr(cause, "exceptions", ())
        waiting += [one for one in (cause.__cause__, cause.__context__) if one is not None]


def _requested_places(causes: list[BaseException]) -> list[str]:
    """Return the places that the SDK's error and those of its HTTP library were raised for.

    The first differs from the last after a redirect.
    """
    places = []
    for cause in causes:
        with contextlib.suppress(Exception):  # raises where it is not set
            places.append(_place(str(cause.request.url)))  # type: ignore[attr-defined]
    return places


def _detail(causes: list[BaseException]) -> str:
    """Return the system's own words, else the last name."""
    for cause in reversed(causes):
        if isinstance(cause, OSError) and cause.strerror:
            return printable(cause.strerror)
    texts = [str(cause) for cause in causes if str(cause) not in ("", "Connection error.")]
    text = texts[-1] if texts else type(causes[-1]).__name__
    return printable(" ".join(text.split()))[:120]


def _proxy(url: str) -> str:
    """Return the place of the proxy that the environment names for a URL, or an empty text."""
    parts = urlsplit(url)
    with contextlib.suppress(ValueError):
        proxies = urllib.request.getproxies()
        proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
        if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
            return _place(proxy if "://" in proxy else f"http://{proxy}")
    return ""


def _place(url: str) -> str:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    host = parts.hostname or ""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
