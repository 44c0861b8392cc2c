"""How the verdicts of a critic behind an endpoint came about, by the stored replies.

Shapes: N texts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lavis.llm.base import ChatReply
from lavis.llm.offline import NOT_STORED, OfflineClient, message_text
from lavis.llm.verdicts.words import first_word
from lavis.models.blip2.matching import host_index

if TYPE_CHECKING:
    from lavis.integrations.endpoint_critic import EndpointCritic


def trace_stored(critic: EndpointCritic, samples: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return how each verdict came about, from stored replies alone; see `VlmCritic.trace`.

    Returns:
        N mappings: `prompt`, the texts of the request; `top`, the listed tokens of the answer's
        first word with their probabilities; `yes`, `no`, those that say so; `score`; `reply`, the
        answer's text; `images` as they were sent. Or `reject`.
    """
    if critic.config.mode in ("rerank", "score"):
        return [
            {"reject": f"no tokens: the mode is {critic.config.mode}"} for _ in samples["parts"]
        ]
    index = host_index(samples.get("image_index"), len(samples["parts"]), len(samples["views"]))
    traces: list[dict[str, Any]] = []
    for image, question in zip(index, critic.questions(samples), strict=True):
        client = OfflineClient(critic.config.llm, keep=True)
        (verdict,) = critic.make_asker(client).verdicts([question])  # type: ignore[arg-type]
        stored = [(request, reply) for request, reply in client.asked if reply.ok]
        if not stored:
            traces.append({"reject": NOT_STORED})
            continue
        request, reply = stored[-1]
        traces.append(
            {
                "prompt": message_text(request),
                "reply": reply.text,
                "score": verdict.score,
                "images": list(samples["views"][image]),
                **_tokens(critic, reply),
            }
        )
    return traces


def _tokens(critic: EndpointCritic, reply: ChatReply) -> dict[str, list[tuple[str, float]]]:
    place = first_word(reply.logprobs) if reply.logprobs else None
    if place is None:
        return {}
    top = [(token, math.exp(value)) for token, value in place.top]
    top.sort(key=lambda pair: -pair[1])
    return {
        "top": top,
        "yes": [pair for pair in top if critic.yes_words.says(pair[0])],
        "no": [pair for pair in top if critic.no_words.says(pair[0])],
    }
