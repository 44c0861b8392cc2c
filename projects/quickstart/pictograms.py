"""Which pictograms a text names: CLDR names, the longest first, plurals, and a few other words."""

from __future__ import annotations

import hashlib
import re
from functools import cache

from lavis.common.errors import ConfigError
from lavis.generators.words import tokens
from projects.quickstart import openmoji

# Names that are marks, verbs or colours in running text.
_NOT_OBJECTS = frozenset(
    "plus minus multiply divide information infinity copyright registered prohibited warning label "
    "om link pick customs collision construction restroom locked unlocked wireless "
    "sparkle dizzy cooking camping bowling judge guard kiss family information khanda hamsa mate "
    "selfie hole wedding supervillain star-struck pager receipt seal orange rose ring".split()
)
# What people call things whose CLDR name is another.
_OTHER_WORDS = {
    "aeroplane": "airplane",
    "apple": "red apple",
    "beer": "beer mug",
    "bike": "bicycle",
    "blueberry": "blueberries",
    "boat": "sailboat",
    "bulb": "light bulb",
    "bunny": "rabbit",
    "cake": "shortcake",
    "cell phone": "mobile phone",
    "cellphone": "mobile phone",
    "cheese": "cheese wedge",
    "cherry": "cherries",
    "clock": "mantelpiece clock",
    "computer": "desktop computer",
    "couch": "couch and lamp",
    "dinosaur": "sauropod",
    "fir": "evergreen tree",
    "flower": "blossom",
    "football": "soccer ball",
    "french fry": "french fries",
    "glove": "gloves",
    "grape": "grapes",
    "hat": "top hat",
    "heart": "red heart",
    "hot-dog": "hot dog",
    "kitten": "cat",
    "knife": "kitchen knife",
    "leaf": "fallen leaf",
    "money": "money bag",
    "moon": "full moon",
    "motorbike": "motorcycle",
    "palm": "palm tree",
    "pancake": "pancakes",
    "peanut": "peanuts",
    "phone": "mobile phone",
    "pine": "evergreen tree",
    "plane": "airplane",
    "pumpkin": "jack-o-lantern",
    "puppy": "dog",
    "rice": "cooked rice",
    "shoe": "running shoe",
    "sneaker": "running shoe",
    "sock": "socks",
    "sofa": "couch and lamp",
    "steak": "cut of meat",
    "traffic light": "vertical traffic light",
    "train": "locomotive",
    "tree": "deciduous tree",
    "truck": "delivery truck",
    "tv": "television",
    "wine": "wine glass",
}
_IRREGULAR = {
    "men": "man",
    "women": "woman",
    "children": "child",
    "people": "person",
    "teeth": "tooth",
    "feet": "foot",
    "geese": "goose",
    "mice": "mouse",
    "oxen": "ox",
    "wolves": "wolf",
    "leaves": "leaf",
    "knives": "knife",
}
_LONGEST = 5  # words of a name


@cache
def _vocabulary() -> dict[tuple[str, ...], str]:
    """Words in lower case -> CLDR name, for every name that OpenMoji draws and a text can use."""
    found: dict[tuple[str, ...], str] = {}
    known = openmoji.names()
    for name, character in known.items():
        is_flag = "\U0001f1e6" <= character[0] <= "\U0001f1ff" or "\U000e0067" in character
        if "skin tone" in name or is_flag or name in _NOT_OBJECTS:
            continue
        words = tuple(tokens(name))
        if not words or len(words) > _LONGEST or words[-1] in ("button", "keycap", "o'clock"):
            continue
        found.setdefault(words, name)
    for word, name in _OTHER_WORDS.items():
        if name in known:
            found[tuple(tokens(word))] = name
    for word, entry in openmoji.catalogue().items():
        found[(word,)] = entry.name
    return {words: name for words, name in found.items() if _is_drawn(name)}


def _is_drawn(name: str) -> bool:
    try:
        openmoji.svg_path(name)
    except ConfigError:
        return False
    return True


def pictogram_names() -> list[str]:
    """Return the CLDR names of all pictograms that a text can name, sorted."""
    return sorted(set(_vocabulary().values()))


@cache
def vocabulary_digest() -> str:
    """Return a hash of which words name which pictogram."""
    said = repr(sorted(_vocabulary().items()))
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


def named_pictograms(text: str) -> list[tuple[str, list[str]]]:
    """Return the pictograms that a text names, each once, in the order of the text.

    Of names side by side the last is meant: a tiger shark is a shark.

    Returns:
        CLDR name, and the words of the text (lower case) that name it, every time they do.
    """
    found: dict[str, list[str]] = {}
    for clause in re.split(r"[^\w\s'’-]+", text):
        for name, words in _names_in(tokens(clause)):
            found.setdefault(name, []).extend(words)
    return list(found.items())


def _names_in(words: list[str]) -> list[tuple[str, list[str]]]:
    """Return the names in a run of words without punctuation, with their words."""
    vocabulary = _vocabulary()
    found: list[tuple[str, list[str]]] = []
    at = named_until = 0
    while at < len(words):
        size, name = _longest_name(words[at : at + _LONGEST], vocabulary)
        if name:
            if found and named_until == at and not words[at - 1].endswith("'s"):
                found.pop()
            found.append((name, words[at : at + size]))
            named_until = at + size
        at += size
    return found


def _longest_name(words: list[str], vocabulary: dict[tuple[str, ...], str]) -> tuple[int, str]:
    """Return how many words a name takes, and the name; (1, "") where the first names nothing."""
    for size in range(len(words), 0, -1):
        for last in base_forms(words[size - 1]):
            name = vocabulary.get((*words[: size - 1], last))
            if name is not None:
                return size, name
    return 1, ""


def base_forms(word: str) -> list[str]:
    """Return a word and what it may be the plural or possessive of, the likeliest first."""
    word = word.removesuffix("'s")
    forms = [word]
    if word in _IRREGULAR:
        forms.append(_IRREGULAR[word])
    if word.endswith("ies") and len(word) > 4:
        forms.append(word[:-3] + "y")
    if word.endswith(("ses", "xes", "ches", "shes", "oes")):
        forms.append(word[:-2])
    if word.endswith("s") and not word.endswith(("ss", "us")) and len(word) > 3:
        forms.append(word[:-1])
    return forms
