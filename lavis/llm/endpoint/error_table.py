"""The table of errors that servers of chat completions send (`lavis/configs/llm/errors.yaml`)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from lavis.common.config.fields import STRICT
from lavis.llm.endpoint.error_body import ErrorBody
from lavis.llm.tables import Pattern, Words, load_table

Kind = Literal["transient", "simplify", "refused", "fatal", "stopped"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Rule:
    """A row: what an error means whose status is listed and whose codes or words match.

    Attributes:
        kind: of the problem.
        phrase: begins the reason.
        status: (first, last), both included.
        source: who sends it.
        codes: any of them is enough.
        words: searched in the text of the error, in lower case, without addresses.
        unless: words or codes which show that it is another matter.
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


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ErrorTable:
    """The file.

    Attributes:
        rules: the first that fits decides.
        later_rules: looked at after the parameters that an error names.
        not_taken: words for a field that the server does not take.
        reply_format: words for the form of the reply.
        out_of_range: words for a value out of its range.
        no_path: how frameworks say that they have no such path.
    """

    rules: tuple[Rule, ...]
    later_rules: tuple[Rule, ...]
    not_taken: Pattern
    reply_format: Pattern
    out_of_range: Pattern
    no_path: Pattern


def error_table() -> ErrorTable:
    """Return the table; raises `ConfigError` where the file is damaged."""
    return load_table("errors", ErrorTable)
