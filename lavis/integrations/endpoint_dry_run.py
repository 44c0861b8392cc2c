"""What a run with a critic behind an endpoint would send and cost; nothing is sent.

Shapes: N texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from lavis.integrations.endpoint_config import EndpointCriticConfig
from lavis.integrations.endpoint_critic import EndpointCritic
from lavis.llm.offline import OfflineClient


class DryEndpointCritic(EndpointCritic):
    """`EndpointCritic` that counts what it would send, and sends nothing."""

    def __init__(self, config: EndpointCriticConfig) -> None:
        super().__init__(config)
        self._client = OfflineClient(config.llm)
        self._asker = self.make_asker(self._client)  # type: ignore[arg-type]

    def predict(self, samples: Mapping[str, Any]) -> dict[str, Any]:
        """Count the requests; the verdicts `(N, 2)` mean nothing."""
        super().predict(samples)
        nothing = torch.full((len(samples["parts"]), 2), 0.5)
        return {"prediction": nothing, "logits": nothing.log()}

    def take_counts(self) -> Counter[str]:
        """Return the client's counts since the last call, with `tokens` to read in all."""
        counts, self._client.counts = self._client.counts, Counter()
        counts["tokens"] = counts["prompt_tokens"] + counts["completion_tokens_at_most"]
        return counts

    def costs(self, counts: Mapping[str, int]) -> dict[str, Any]:
        """Return what counts cost by the price table, and how tokens are estimated."""
        cost = self._client.cost_at_most(counts)
        money = {} if cost is None else {"cost_at_most": cost}
        return {**money, "token_estimate": self._client.method}
