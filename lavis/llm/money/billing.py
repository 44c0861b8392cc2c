"""What a request can cost: bounds on its tokens, corrected by earlier bills.

A bound has three parts. The text of a prompt has at most a token a byte. The reply has at most
`max_tokens`. An image's tokens follow from a provider's rule, which may be another server's: until
some images are billed the rule's number counts several times, afterwards the largest bill so far,
with a margin that falls as bills come in. Text and replies are corrected likewise if a server bills
more than their bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lavis.common.errors import ConfigError, finite

# How many times the estimate an image may be billed before the first bill. OpenAI's documented
# numbers alone differ 33-fold between two models of one rule (gpt-4o, gpt-4o-mini).
FACTOR_OF_FLAT = 40.0
FACTOR_OF_RULE = 4.0
MARGIN = 1.25  # over the largest bill so far
# No model reads or writes more in one request; a larger count is a server's mistake.
MAX_TOKENS = 10_000_000


@dataclass(frozen=True, slots=True)
class PromptBound:
    """The size of a prompt, in tokens.

    Attributes:
        text: upper bound of its text.
        guess: estimate of its text.
        images: of its images, by the rule.
        documented: the rule is a provider's.
    """

    text: int
    guess: int = 0
    images: int = 0
    documented: bool = False


@dataclass(slots=True)
class Ratio:
    """Billed tokens against expected ones, over `count` bills; `most` is the largest of a bill."""

    count: int = 0
    billed: float = 0.0
    expected: float = 0.0
    most: float = 0.0

    def add(self, billed: float, expected: float) -> None:
        """Note a bill."""
        if expected > 0:
            self.count += 1
            self.billed += max(0.0, billed)
            self.expected += expected
            self.most = max(self.most, billed / expected)

    @property
    def mean(self) -> float:
        """Return the mean ratio, 1 before the first bill."""
        return self.billed / self.expected if self.expected else 1.0


@dataclass(slots=True)
class Bills:
    """What one server billed for one model so far.

    Attributes:
        images: tokens of images against the rule.
        text: tokens of prompts without images against their bound.
        reply: tokens of replies against `max_tokens`.
    """

    images: Ratio = field(default_factory=Ratio)
    text: Ratio = field(default_factory=Ratio)
    reply: Ratio = field(default_factory=Ratio)

    def add(self, bound: PromptBound, max_tokens: int, tokens: tuple[int, int]) -> None:
        """Note the server's counts of prompt and reply."""
        if bound.images:
            self.images.add(tokens[0] - bound.guess, bound.images)
        else:
            self.text.add(tokens[0], bound.text)
        self.reply.add(tokens[1], max_tokens)

    def most(self, bound: PromptBound, max_tokens: int) -> tuple[int, int]:
        """Return upper bounds on tokens of prompt and reply, as far as is known."""
        factor = FACTOR_OF_RULE if bound.documented else FACTOR_OF_FLAT
        if self.images.count:
            factor = max(MARGIN * self.images.most, factor / self.images.count)
        return self._tokens(bound, max_tokens, factor)

    def likely(self, bound: PromptBound, max_tokens: int) -> tuple[int, int]:
        """Return the same bounds with images at their average bill."""
        return self._tokens(bound, max_tokens, self.images.mean)

    def estimate(self, bound: PromptBound) -> int:
        """Return about how many tokens a prompt has."""
        return bound.guess + round(self.images.mean * bound.images)

    def _tokens(self, bound: PromptBound, max_tokens: int, factor: float) -> tuple[int, int]:
        prompt = bound.text * _raised(self.text) + bound.images * factor
        return math.ceil(prompt), math.ceil(max_tokens * _raised(self.reply))

    def to_json(self) -> dict[str, list[float]]:
        """Return the sums, to be read by `from_json`."""
        parts = {"pictures": self.images, "text": self.text, "reply": self.reply}
        return {k: [r.count, r.billed, r.expected, r.most] for k, r in parts.items() if r.count}

    @classmethod
    def from_json(cls, node: dict[str, Any]) -> Bills:
        """Return what `to_json` wrote; raises one of `REFUSALS` for anything else."""
        parts = {
            "images" if name == "pictures" else name: Ratio(int(count), *_checked_numbers(numbers))
            for name, (count, *numbers) in node.items()
        }
        return cls(**parts)


def _raised(ratio: Ratio) -> float:
    """Return the factor that raises a bound once exceeded, 1 if it never was."""
    return MARGIN * ratio.most if ratio.most > 1 else 1.0


def _checked_numbers(values: Sequence[Any]) -> list[float]:
    numbers = [finite(value) for value in values]
    if any(value is None or value < 0 for value in numbers):
        raise ConfigError("a number from 0 was expected")
    return [value for value in numbers if value is not None]
