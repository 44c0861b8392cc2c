"""What a backend works with: the store of replies, the ledger, the estimates of tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from lavis.llm.base import ChatReply, ChatRequest
from lavis.llm.endpoint.failures import Problem
from lavis.llm.money.budget import Account
from lavis.llm.money.tokens import TokenCounter
from lavis.llm.money.usage import rough_tokens
from lavis.llm.store import ReplyStore


@dataclass(frozen=True)
class Desk:
    """Handed to a backend when it is built.

    Attributes:
        folder: of this run's own state.
        ledger: what this client may spend; caps and totals of the whole output folder.
        store: paid replies.
        counter: token estimates.
    """

    folder: Path
    ledger: Account
    store: ReplyStore
    counter: TokenCounter

    def finish(
        self, key: str, reply: ChatReply, request: ChatRequest | None, reservation: str
    ) -> ChatReply:
        """Store a reply, then settle its cost; in this order, so that a kill counts too much.

        Args:
            key: content key.
            reply: as received; token counts that the server left out, or that no model can have,
                are estimated.
            request: where it is still at hand.
            reservation: name in the ledger.
        """
        written = reply.completion_tokens or rough_tokens(reply.reasoning + reply.text)
        counts = reply.prompt_tokens, written
        prompt, completion = self.ledger.counted(reservation, *counts)
        if not prompt and request is not None:
            prompt = self.counter.estimate(request)
        reply = replace(reply, prompt_tokens=prompt, completion_tokens=completion)
        self.store.put(key, reply, request)
        self.ledger.settle(reservation, *counts)
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
