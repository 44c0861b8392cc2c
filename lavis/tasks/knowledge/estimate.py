"""Requests and cost of a generation, estimated from a sample of its images; no network."""

from __future__ import annotations

from collections import Counter
from typing import Any

from lavis.common.errors import RecordError
from lavis.llm.base import content_key, image_parts
from lavis.llm.config import LlmConfig
from lavis.llm.money.tokens import TokenCounter
from lavis.llm.store import ReplyStore
from lavis.tasks.knowledge.generation import KnowledgeGeneration


def estimate(generation: KnowledgeGeneration, llm: LlmConfig) -> dict[str, Any]:
    """Return the requests and cost of a run, without touching the network.

    At most `dry_run_sample` images, evenly spaced, are read; the rest is taken to be like them.
    Stored replies are not counted as cost. Repairs and retries are not foreseen.
    """
    rows = len(generation.store)
    step = max(1, -(-rows // generation.config.dry_run_sample))
    sample = range(0, rows, step)
    counter = TokenCounter(llm, exact=True)
    store, identity = ReplyStore(llm.cache_dir), llm.identity
    requests = stored = tokens = images = image_tokens = 0
    reasons: Counter[str] = Counter()
    kinds = len(generation.config.prompts)
    for unit in (row * kinds + kind for row in sample for kind in range(kinds)):
        try:
            request = generation.request(unit, generation.scene(unit))
        except RecordError as error:
            reasons[error.reason.split(":")[0]] += 1
            continue
        requests += 1
        if store.has(content_key(identity, request)):
            stored += 1
        else:
            tokens += counter.estimate(request)
            images += len(image_parts(request.messages))
            image_tokens += counter.bound(request).images
    scale = rows / max(1, len(sample))
    to_send = round((requests - stored) * scale)
    prompt_tokens, most = round(tokens * scale), to_send * generation.config.max_tokens
    report: dict[str, Any] = {
        "pictures": rows,
        "requests": round(requests * scale),
        "stored_replies": round(stored * scale),
        "requests_to_send": to_send,
        "not_asked": {reason: round(count * scale) for reason, count in reasons.items()},
        "prompt_tokens": prompt_tokens,
        "completion_tokens_at_most": most,
        "token_estimate": counter.method,
        "pictures_read": len(sample),
    }
    if generation.images is not None:
        report |= {
            "images_to_send": round(images * scale),
            "image_tokens": round(image_tokens * scale),
            "image_token_rule": counter.image_rule,
        }
    if llm.price is not None:
        cost = prompt_tokens * llm.price.input + most * llm.price.output
        report["cost_at_most"] = round(cost * llm.price_factor / 1e6, 4)
    return report
