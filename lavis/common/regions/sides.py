"""Left and right in a text of a mirrored image: changed where that is sure, else refused."""

from __future__ import annotations

import regex

_SWAPS = {
    "left": "right",
    "leftmost": "rightmost",
    "lefthand": "righthand",
    "leftward": "rightward",
    "leftwards": "rightwards",
}
_SWAPS |= {right: left for left, right in _SWAPS.items()}
_PLACES = (  # what a side stands before; before others `right` may mean true
    r"(?:hand|side|arm|leg|foot|eye|ear|cheek|shoulder|knee|elbow|wrist|wing|half|third|quarter|part|"
    r"corner|edge|border|margin|column|lane|wall|shoe|glove|sleeve|sock|image|picture|frame|panel)s?"
)
_OWNER = r"(?:the|its|his|her|their|our|my|your)"
_LINK = r"(?:\s+|\s*[-–/]\s*)"
_SIDE = r"(?:left|right)"
_ALONE = (
    r"(?:on|at|from|facing|faces|turns?|turning|turned|points?|pointing|leans?|leaning|"
    r"walks?|walking)"
)
_END = r"(?!\p{L})"
_STRAIGHT = (  # "walks right into the wall" is no side
    r"(?!\s+(?:into|onto|up|down|through|past|by|along|across|around|out|off|back|against|"
    r"between|towards?)(?!\p{L}))"
)
_WORDS = regex.compile(
    rf"(?<!\p{{L}})(?:{'|'.join(sorted(_SWAPS, key=len, reverse=True))}){_END}", regex.IGNORECASE
)
_SURE = regex.compile(
    rf"(?<!\p{{L}})(?:"
    rf"{_SIDE}{_LINK}(?:most|hand|wards?|of|{_PLACES}){_END}"
    rf"|{_SIDE}(?:most|hand|wards?){_END}"
    rf"|{_SIDE}{_LINK}(?:and|or|to)?{_LINK}?{_SIDE}{_END}"
    rf"|{_ALONE}{_LINK}{_SIDE}{_END}{_STRAIGHT}"
    rf"|(?:on|at|from|to|in|towards?){_LINK}{_OWNER}{_LINK}(?:far{_LINK})?{_SIDE}{_END}"
    rf"|(?:far|upper|lower|top|bottom){_LINK}{_SIDE}{_END}"
    rf")",
    regex.IGNORECASE,
)
_NEVER = regex.compile(  # idioms, and what turns round with the image in other words
    r"(?<!\p{L})(?:right (?:now|away|after|before|here|there|next|behind|above|below|under|over|on|"
    r"in|at|beside|answer|choice|thing|time|place|way|direction|order|angle)s?|all right|"
    r"(?:has|have|had|is|are|was|were) left|left (?:over|behind|alone|out|off|for|by)|"
    r"(?:anti|counter)?-?clockwise|rightly|rights)(?!\p{L})",
    regex.IGNORECASE,
)
_FOREIGN = regex.compile(  # the sides in other languages of Latin script
    r"(?<!\p{L})(?:links|rechts|gauche|droite|izquierda|derecha|sinistra|destra|esquerda|direita|"
    r"lewo|prawo|vänster|höger)(?!\p{L})",
    regex.IGNORECASE,
)
_OTHER_SCRIPT = regex.compile(r"(?!\p{Script=Latin})\p{L}")


def swap_sides(text: str) -> str | None:
    """Return an English text with left and right changed, or None where that is not sure.

    Not sure are `right` for true and `left` for gone, turns of a clock, and other languages.

    Example:
        >>> swap_sides("The man on the left holds [1] in his right hand.")
        'The man on the right holds [1] in his left hand.'
        >>> swap_sides("Is that right?") is None
        True
    """
    if _OTHER_SCRIPT.search(text) or _FOREIGN.search(text) or _NEVER.search(text):
        return None
    sure = [match.span() for match in _SURE.finditer(text, overlapped=True)]
    for match in _WORDS.finditer(text):
        if not any(start <= match.start() and match.end() <= end for start, end in sure):
            return None
    return str(_WORDS.sub(lambda match: _swapped(match[0]), text))


def _swapped(word: str) -> str:
    other = _SWAPS[word.lower()]
    if word.isupper():
        return other.upper()
    return other.capitalize() if word[0].isupper() else other
