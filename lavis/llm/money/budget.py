"""Hard caps on requests, tokens and money of one client, kept over restarts.

Each client of a run has an `Account` of the run's one `Ledger`, with its own prices. A cap holds as
long as bounds do; if a server bills more than any bill before, it is passed by no more than the
requests on their way, one for each worker.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import astuple, replace

from lavis.common.errors import ConfigError
from lavis.llm.config import LlmConfig
from lavis.llm.money.billing import MAX_TOKENS, PromptBound
from lavis.llm.money.image_tokens import ImageTokens
from lavis.llm.money.ledger import Ledger, amount_of
from lavis.llm.money.ledger_file import Reservation, Totals, scoped, unscoped

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2  # how often a thread that waits for its turn looks whether it should stop


class BudgetReached(RuntimeError):
    """A cap would be passed by the next request; the message names it and the true figures."""


class Account:
    """What one client spends from a ledger: with its own prices, under names of its own.

    Args:
        ledger: shared by all clients of a run.
        config: says prices, caps (which hold for the whole ledger) and the model.
        scope: name of the client, the same at every start.
        owned: close the ledger with the client.

    Attributes:
        ledger: as handed in.

    Raises:
        ConfigError: money is capped and the price of the model is not known.
    """

    def __init__(
        self,
        ledger: Ledger,
        config: LlmConfig,
        *,
        scope: str = "",
        owned: bool = False,
    ) -> None:
        ledger.limit(config.caps)
        if ledger.caps.max_cost is not None and config.price is None and config.is_paid:
            raise ConfigError(
                f"caps.max_cost of the output folder needs the price of {config.model!r}: set "
                f'prices={{"{config.model}": {{input: ..., output: ...}}}} for a million tokens '
                "(0 where it costs nothing)"
            )
        self.ledger, self._scope, self._owned = ledger, scope, owned
        rule = ImageTokens(config.image_token_rule, config.model, config.image_tokens).label
        server = config.identity.get("server") or getattr(config, "base_url", None) or ""
        self._model = f"{server} {config.model}, pictures: {rule}".strip()  # whose bills count
        price, factor = config.price, config.price_factor
        self._price = (0.0, 0.0) if price is None else (price.input * factor, price.output * factor)
        self._reached = ""
        self._warned = False

    def was_billed(self) -> bool:
        """Return whether the server ever counted a reply of this model, at any start."""
        with self.ledger.changed:
            return self.ledger.state.bills_of(self._model).reply.count > 0

    def _item(self, name: str) -> Reservation | None:
        """Return an open reservation; the caller holds `ledger.changed`."""
        return self.ledger.state.waiting.get(scoped(self._scope, name))

    def pending(self) -> list[str]:
        """Return the names of this client's open reservations."""
        with self.ledger.changed:
            names = (unscoped(self._scope, name) for name in self.ledger.state.waiting)
            return [name for name in names if name is not None]

    def reservation(self, name: str) -> Totals:
        """Return the amount reserved under a name; nothing if it is settled."""
        with self.ledger.changed:
            item = self._item(name)
            return Totals() if item is None else item.amount

    def adopt(self, names: Iterable[str]) -> None:
        """Take over reservations of an earlier process, which this one will settle."""
        full = {scoped(self._scope, name) for name in names}
        with self.ledger.changed:
            self.ledger.mine |= full & set(self.ledger.state.waiting)

    def estimate(self, bound: PromptBound) -> int:
        """Return about how many tokens a prompt will be billed."""
        with self.ledger.changed:
            return self.ledger.state.bills_of(self._model).estimate(bound)

    def reserve(
        self,
        name: str,
        bound: PromptBound,
        max_tokens: int,
        *,
        wait: bool = True,
        stop: threading.Event | None = None,
    ) -> bool:
        """Reserve the most that a request can cost, before it is sent.

        If that passes a cap and nothing else is on its way, a request whose images cost what they
        do on average goes alone.

        Args:
            name: of the reservation, new.
            bound: of the prompt.
            wait: if a cap blocks it, wait for other requests to cost less than their bound.
            stop: ends waiting.

        Returns:
            Whether it is reserved; False if others are on their way without `wait`, or on `stop`.

        Raises:
            BudgetReached: a cap would be passed, whatever the others cost.
        """
        ledger = self.ledger
        with ledger.changed:
            while True:
                if self._reached:
                    raise BudgetReached(self._reached)
                bills = ledger.state.bills_of(self._model)
                amount = amount_of(bills.most(bound, max_tokens), self._price)
                reason = ledger.exceeded(amount)
                if reason and not ledger.waits_for(self._scope):
                    likely = amount_of(bills.likely(bound, max_tokens), self._price)
                    reason = ledger.exceeded(likely)
                    if reason:
                        self._reached = reason
                        ledger.changed.notify_all()
                        raise BudgetReached(reason)
                if not reason:
                    break
                if not wait or (stop is not None and stop.is_set()):
                    return False
                ledger.changed.wait(None if stop is None else _POLL_SECONDS)
            item = Reservation(amount, bound, max_tokens, self._price, self._model)
            ledger.reserve(scoped(self._scope, name), item)
        return True

    def counted(self, name: str, prompt_tokens: int, completion_tokens: int) -> tuple[int, int]:
        """Return a server's token counts of a request, corrected.

        A prompt of no tokens was not counted: it is estimated. Counts that no model can read or
        write are a mistake of the server: the request's bound is taken.
        """
        with self.ledger.changed:
            item = self._item(name)
            if item is None or item.bound is None:
                return max(0, prompt_tokens), max(0, completion_tokens)
            bills = self.ledger.state.bills_of(item.model)
            most = bills.most(item.bound, item.max_tokens)
            if prompt_tokens <= 0:
                prompt_tokens = bills.estimate(item.bound)
        return (
            prompt_tokens if prompt_tokens <= MAX_TOKENS else most[0],
            max(0, completion_tokens) if completion_tokens <= MAX_TOKENS else most[1],
        )

    def settle(self, name: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Replace a reservation by the server's counts; missing ones are estimated."""
        ledger = self.ledger
        with ledger.changed:
            item = self._item(name)
            if item is None:
                return
            tokens = self.counted(name, prompt_tokens, completion_tokens)
            odd = max(prompt_tokens, completion_tokens) > MAX_TOKENS
            bill: list[object] | None = None
            if item.bound is not None and prompt_tokens > 0 and not odd:
                ledger.state.bills_of(item.model).add(item.bound, item.max_tokens, tokens)
                bill = [item.model, astuple(item.bound), item.max_tokens, tokens]
            price = item.price if item.bound is not None else self._price
            amount = replace(amount_of(tokens, price), unknown=int(odd))
            ledger.settle(scoped(self._scope, name), amount, bill)
            if odd and not self._warned:
                self._warned = True
                logger.warning(
                    "%s: the server says that one request took %.3g tokens of prompt and %.3g of "
                    "reply, which no model can; such requests count at the most they can have",
                    *(self._model, float(prompt_tokens), float(completion_tokens)),
                )

    def free(self, name: str) -> None:
        """Note that a request was sent and cost nothing: the server refused it."""
        self._end(name, Totals(requests=1))

    def forfeit(self, name: str) -> None:
        """Charge a reservation in full: the outcome is unknown."""
        with self.ledger.changed:
            item = self._item(name)
            if item is not None:
                self._end(name, self.ledger.forfeited(item))

    def cancel(self, name: str) -> None:
        """Release a reservation: the request was never sent."""
        self._end(name, Totals())

    def close(self) -> None:
        """Close the ledger if no other client has it."""
        if self._owned:
            self.ledger.close()

    def _end(self, name: str, amount: Totals) -> None:
        with self.ledger.changed:
            if self._item(name) is not None:
                self.ledger.settle(scoped(self._scope, name), amount)
