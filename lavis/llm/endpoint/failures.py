"""Why an attempt at a request gave no reply, and what follows from it: one table for all servers.

The first row that fits decides, see `error_table`. An unknown refusal is never held against the
request: it is tried once more, then left for the next start; if many fail alike, the run stops
(`lavis.llm.endpoint.breaker`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass

from lavis.common.config.fields import STRICT
from lavis.common.errors import RunError
from lavis.llm.endpoint.error_body import ErrorBody, read_error, retry_after
from lavis.llm.tables import Pattern, Words, load_table

Kind = Literal["transient", "simplify", "refused", "fatal", "stopped"]
Cost = Literal["none", "unknown", "unsent"]


class EndpointStopped(RunError):
    """No further request can succeed now, and no setting mends it: quota, billing, a dead server.

    Finished work is stored; the same command resumes once the cause is mended.
    """


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an attempt gave no reply.

    Attributes:
        kind: `transient`: try again. `simplify`: try again without what the server rejects.
            `refused`: this request's own fault. `fatal`: no request can succeed until a setting is
            mended (`ConfigError`). `stopped`: none can until the account or the server is
            (`EndpointStopped`).
        reason: for people, free of secrets; begins with a fixed phrase and a colon.
        retry_after: seconds the server asks to wait, if it does.
        cost: `none` the server refused, `unknown` it may have worked and charged, `unsent` nothing
            reached it.
        usage: (prompt tokens, completion tokens) of a useless answer; None if not reported.
        field: of the body, which `simplify` is about.
        most_attempts: times that sending the request is worth it; 0 as often as the config says.
    """

    kind: Kind
    reason: str
    retry_after: float | None = None
    cost: Cost = "none"
    usage: tuple[int, int] | None = None
    field: str = ""
    most_attempts: int = 0

    @property
    def ends_run(self) -> bool:
        """Return whether no other request can succeed either."""
        return self.kind in ("fatal", "stopped")


@checked_dataclass(frozen=True, kw_only=True, config=STRICT)
class Rule:
    """A row: the meaning of an error whose status is listed and whose codes or words match.

    Attributes:
        kind: of the problem.
        phrase: begins the reason.
        status: (first, last), both included.
        source: who sends it.
        codes: any of them is enough.
        words: searched in the text of the error, in lower case, without addresses.
        unless: words or codes that exclude the row.
        advice: ends the reason.
    """

    kind: Kind
    phrase: str = ""
    status: tuple[int, int]
    source: Annotated[str, Field(min_length=1)]
    codes: Words = frozenset()
    words: Pattern | None = None
    unless: Pattern | None = None
    advice: str = ""

    def fits(self, status: int, error: ErrorBody) -> bool:
        """Return whether the row is about this error."""
        if not self.status[0] <= status <= self.status[1]:
            return False
        if self.unless and any(map(self.unless.search, (error.words, *error.codes))):
            return False
        if not self.codes and self.words is None:
            return True
        return bool(self.codes & error.codes) or bool(self.words and self.words.search(error.words))


@checked_dataclass(frozen=True, kw_only=True, config=STRICT)
class ErrorTable:
    """The file.

    Attributes:
        rules: the first that fits decides.
        later_rules: tried after the parameters that an error names.
        not_taken: words for a field that the server rejects.
        reply_format: words for the form of the reply.
        out_of_range: words for a value out of its range.
        no_path: words of frameworks for an unknown path.
    """

    rules: tuple[Rule, ...]
    later_rules: tuple[Rule, ...]
    not_taken: Pattern
    reply_format: Pattern
    out_of_range: Pattern
    no_path: Pattern


def error_table() -> ErrorTable:
    """Return the table; raises `ConfigError` if the file is damaged."""
    return load_table("errors", ErrorTable)


# A gateway that answers so has not handed the request on; of 522 it cannot tell.
_NOT_WORKED = frozenset({503, 521, 523, 525, 526, 529, 530})


def classify(
    status: int,
    body: Any,
    headers: Mapping[str, str] | None = None,
    *,
    sent: Mapping[str, Any] | None = None,
    address: str = "",
) -> Problem:
    """Return the meaning of a server's error, of a single request or of a line of a batch.

    Args:
        status: of HTTP; 200 for an error inside a success, whose own code is then used.
        body: text or parsed JSON.
        sent: the request's body, whose fields an error may name; None if unknown.
        address: of the request, for the message.
    """
    error = read_error(body)
    inside = status < 300
    if inside:
        codes = [int(code) for code in error.codes if re.fullmatch(r"[45]\d\d", code)]
        status = max(codes, default=500)
    wait = retry_after(headers or {})
    wait = error.wait if wait is None else wait
    problem = _matched(status, error, sent, address)
    cost: Cost = "none"
    if inside or (status >= 500 and status not in _NOT_WORKED):
        cost = "unknown"
    return replace(problem, retry_after=wait, cost=cost)


def _matched(
    status: int, error: ErrorBody, sent: Mapping[str, Any] | None, address: str
) -> Problem:
    shown = f"HTTP {status}: {error.message}" if error.message else f"HTTP {status}"
    table = error_table()
    if not error.page:  # the words of a page are not the API's
        for rule in table.rules:
            if rule.fits(status, error):
                return _problem(rule, shown)
        if status in (400, 404, 415, 422, 500, 501):
            field = _field_of(error, sent)
            if field:
                return Problem("simplify", f"{field}: {shown}", field=field)
            if status < 500 and table.out_of_range.search(error.words):
                named = _named(error, ("temperature", "top_p", "seed"), sent)
                if named:
                    advice = f"set {named} to what the server takes, or to null"
                    return Problem("fatal", f"{named}: {shown}; {advice}")
    if error.page and status == 403:
        return Problem("stopped", f"permission: {shown}; something before the server said no")
    for rule in table.later_rules:
        if not rule.fits(status, error) or (error.page and rule.phrase == "model"):
            continue
        if rule.phrase != "address":
            return _problem(rule, shown)
        if not error.page and error.words and not table.no_path.search(error.words):
            return Problem("fatal", f"{shown}; look at llm.base_url and llm.model")
        where = f" at {address}" if address else ""
        return Problem(
            "fatal",
            f"address: {shown}; nothing answers{where}: look at llm.base_url, which for most "
            "servers ends in /v1",
        )
    return Problem("transient", f"unknown error: {shown}", most_attempts=2)


def _problem(rule: Rule, shown: str) -> Problem:
    phrase = "" if not rule.phrase or shown.startswith(rule.phrase) else f"{rule.phrase}: "
    return Problem(rule.kind, phrase + shown + (f"; {rule.advice}" if rule.advice else ""))


def _field_of(error: ErrorBody, sent: Mapping[str, Any] | None) -> str:
    """Return the field of the body that the server rejects, or an empty text."""
    table, codes = error_table(), " ".join(error.codes)
    if not table.not_taken.search(error.words) and not re.search(
        r"unsupported|unknown_param|extra_forbidden|unrecognized", codes
    ):
        return ""
    if table.out_of_range.search(error.words) and not re.search(
        r"unsupported|only the default", error.words
    ):
        return ""  # a value out of its range is for the user to set
    fields = list(sent) if sent is not None else list(SIMPLIFIED)
    names = [name for name in fields if name not in ("model", "messages")]
    named = _named(error, names, sent)
    if not named and "response_format" in names and table.reply_format.search(error.words):
        return "response_format"
    if not named and re.search(r"system.{0,40}role|role.{0,60}system", error.words):
        messages = (sent or {}).get("messages")
        has = messages is None or any(m.get("role") == "system" for m in messages)
        return "system" if has else ""
    return named


SIMPLIFIED = (
    *("max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "response_format"),
    *("stream", "n"),
)


def _named(error: ErrorBody, names: Any, sent: Mapping[str, Any] | None) -> str:
    """Return the field that an error points at: by `param`, else by its words."""
    inner = {
        name: _keys(sent[name])
        for name in names
        if sent and name not in SIMPLIFIED and name in sent
    }
    for param in error.params:
        head = re.split(r"[.\[]", param.removeprefix("body.").removeprefix("$."))[0]
        for name in names:
            if head == name or param in inner.get(name, ()):
                return name
    # "use max_completion_tokens instead" names the remedy: the first to be named is the fault
    places = []
    for name in names:
        for word in (name, *inner.get(name, ())):
            match = re.search(rf"(?<![\w]){re.escape(word.lower())}(?![\w])", error.words)
            if match:
                places.append((match.start(), name))
    if {"temperature", "top_p"} <= {name for _, name in places} and "both" in error.words:
        return "top_p"
    return min(places)[1] if places else ""


def _keys(node: Any) -> tuple[str, ...]:
    """Return the names inside a value of `extra_body`, at any depth."""
    if not isinstance(node, dict):
        return ()
    return tuple(str(k) for k in node) + tuple(k for v in node.values() for k in _keys(v))
