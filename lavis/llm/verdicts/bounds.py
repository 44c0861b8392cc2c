"""P(yes) from the likeliest tokens that a server lists, with bounds for what it does not list.

A list of k tokens leaves out the probability M = 1 - sum. None of the tokens left out is likelier
than the least likely one listed, p_k. So the u spellings of yes that are not listed have together
at most m_yes = min(M, u p_k), and those of no at most m_no. With Y and N the listed probability of
yes and no,

    Y / (Y + N + m_no)  <=  P(yes) / (P(yes) + P(no))  <=  (Y + m_yes) / (Y + m_yes + N)

A word that is not listed is not impossible: it counts half of the most that it can have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from lavis.llm.base import TokenLogprobs
from lavis.llm.verdicts.words import VerdictWords

Over = Literal["sets", "vocabulary"]
MOST = 1.05  # sum of a list's probabilities; above, the numbers are no logarithms of them


@dataclass(frozen=True, slots=True)
class YesNo:
    """Listed probabilities of both verdicts, and the most that may be missing of each."""

    yes: float
    no: float
    missing_yes: float
    missing_no: float

    @property
    def mass(self) -> float:
        """The listed probability of both: how much of the answer is a verdict at all."""
        return self.yes + self.no

    def interval(self, over: Over = "sets") -> tuple[float, float]:
        """Return bounds on P(yes), over both verdicts or over the whole vocabulary."""
        most = self.yes + self.missing_yes
        if over == "vocabulary":
            return self.yes, min(1.0, most)
        return (
            _ratio(self.yes, self.no + self.missing_no, 0.0),
            _ratio(most, self.no, 1.0),
        )

    def score(self, over: Over = "sets") -> float:
        """Return P(yes), between its bounds; half where neither verdict is listed."""
        yes = self.yes or self.missing_yes / 2
        if over == "vocabulary":
            return min(1.0, yes)
        return _ratio(yes, self.no or self.missing_no / 2, 0.5)


def yes_or_no(place: TokenLogprobs, yes: VerdictWords, no: VerdictWords) -> YesNo:
    """Return what a place of an answer says.

    Args:
        place: the token that was written counts beside the likeliest ones where it is not among
            them. The order does not matter.
        yes, no: words of both verdicts.

    Raises:
        ValueError: the probabilities are too many to be such.

    Example:
        >>> place = TokenLogprobs("Yes", -0.5, (("Yes", -0.5), ("No", -1.2), ("The", -4.0)))
        >>> yes_or_no(place, VerdictWords.of(["Yes"]), VerdictWords.of(["No"])).interval()
        (0.61..., 0.70...)
    """
    listed = list(place.top)
    if place.token not in {token for token, _ in listed}:
        listed.append((place.token, place.logprob))
    shares = [(token, math.exp(logprob)) for token, logprob in listed]
    total = math.fsum(share for _, share in shares)
    if total > MOST:
        raise ValueError(f"the listed probabilities add up to {total:.3g}")
    left, least = max(0.0, 1.0 - total), _least(place, shares)
    tokens = [token for token, _ in shares]
    return YesNo(
        yes=math.fsum(share for token, share in shares if yes.says(token)),
        no=math.fsum(share for token, share in shares if no.says(token)),
        missing_yes=min(left, yes.not_among(tokens) * least),
        missing_no=min(left, no.not_among(tokens) * least),
    )


def _least(place: TokenLogprobs, shares: list[tuple[str, float]]) -> float:
    """Return a probability that no token left out exceeds.

    A server that samples may list the token that it wrote in place of the k-th one, or beside k
    others: if it is the least likely, the next one counts, which is no less.
    """
    ordered = sorted(shares, key=lambda pair: pair[1])
    is_written = len(ordered) > 1 and ordered[0][0] == place.token
    return ordered[1][1] if is_written else ordered[0][1]


def _ratio(part: float, other: float, otherwise: float) -> float:
    return part / (part + other) if part + other > 0 else otherwise
