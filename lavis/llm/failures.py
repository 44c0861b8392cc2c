"""Why an attempt at a request gave no reply, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lavis.common.errors import RunError

Kind = Literal["transient", "simplify", "refused", "fatal", "stopped"]


class EndpointStopped(RunError):
    """No further request can succeed now, and no setting mends it: quota, billing, a dead server.

    What was finished is stored; the same command goes on once the cause is mended.
    """


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an attempt gave no reply.

    Attributes:
        kind: `transient`: try again. `simplify`: try again without what the server does not take.
            `refused`: this request's own fault. `fatal`: no request can succeed until a setting is
            mended (`ConfigError`). `stopped`: none can until the account or the server is
            (`EndpointStopped`).
        reason: for people, free of secrets; begins with a fixed phrase and a colon.
        retry_after: seconds the server asks to wait, where it does.
        cost: `none` the server refused, `unknown` it may have worked and charged, `unsent` nothing
            reached it.
        usage: (prompt tokens, completion tokens) that the server counted for an answer which is of
            no use; None where it told nothing.
    """

    kind: Kind
    reason: str
    retry_after: float | None = None
    cost: Literal["none", "unknown", "unsent"] = "none"
    usage: tuple[int, int] | None = None

    @property
    def ends_run(self) -> bool:
        """Return whether no other request can succeed either."""
        return self.kind in ("fatal", "stopped")
