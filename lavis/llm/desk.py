"""What a backend works with: the store of replies, the ledger, the estimates of tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from lavis.llm.base import ChatReply, ChatRequest
from lavis.llm.budget import Ledger
from lavis.llm.failures import Problem
from lavis.llm.store import ReplyStore
from lavis.llm.tokens import TokenCounter


@dataclass(frozen=True)
class Desk:
    """Handed to a backend when it is built.

    Attributes:
        folder: of this run's own state.
        ledger: caps and totals.
        store: paid replies.
        counter: token estimates.
    """

    folder: Path
    ledger: Ledger
    store: ReplyStore
    counter: TokenCounter

    def finish(
        self, key: str, reply: ChatReply, request: ChatRequest | None, reservation: str
    ) -> ChatReply:
        """Store a reply, then settle its cost; in this order, so that a kill counts too much.

        Args:
            key: content key.
            reply: as received; token counts that the server left out are estimated.
            request: where it is still at hand.
            reservation: name in the ledger.
        """
        if not reply.prompt_tokens and request is not None:
            reply = replace(reply, prompt_tokens=self.counter.estimate(request))
        if not reply.completion_tokens:
            reply = replace(reply, completion_tokens=-(-len(reply.text) // 3))
        self.store.put(key, reply, request)
        self.ledger.settle(reservation, reply.prompt_tokens, reply.completion_tokens)
        return reply

    def failed(self, reservation: str, problem: Problem) -> None:
        """Settle the reservation of an attempt that gave no reply.

        Args:
            reservation: name in the ledger.
            problem: says what the server counted, or what the attempt can have cost.
        """
        if problem.usage is not None:
            self.ledger.settle(reservation, *problem.usage)
        elif problem.cost == "none":
            self.ledger.free(reservation)
        elif problem.cost == "unknown":
            self.ledger.forfeit(reservation)
        else:
            self.ledger.cancel(reservation)
