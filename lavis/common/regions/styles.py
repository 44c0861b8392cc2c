"""Regions as the tags and tokens of one family: Qwen2-VL, InternVL, PaliGemma, Florence-2 ...

Special tokens may be gone from a reply (`skip_special_tokens`), so tags are optional where numbers
can be told without them.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lavis.common.regions.mentions import Mention, Mentions, RegionTextError, numbers_of, shown

if TYPE_CHECKING:
    from lavis.common.regions.table import Convention

_TAG = re.compile(r"<\|?/?[a-z_]+\|?>")
_EDGES = " \t\r\n,;:"
_PAIR = r"\((?=[^()]*\d)([\d\s.,+\-]+)\)"  # digits of any script, so that odd ones are seen
_QWEN = re.compile(rf"{_PAIR}\s*(?:,\s*{_PAIR})?")
_REF_BOX = re.compile(r"(?:<ref>([^<]*)</ref>\s*)?<box>([^<]*)(</box>)?")
_LIST = re.compile(r"\[([^\[\]]*)\]")
_LOC4 = re.compile(r"((?:<loc[^<>]*>)+)(?:<seg[^<>]*>)*([^<;]*)")
_LOC = re.compile(r"<loc([^<>]*)>")
_LOC_BINS = re.compile(r"(?:<loc_[^<>]*>)+")
_BIN = re.compile(r"<loc_([^<>]*)>")
_PATCHES = re.compile(r"(?:<patch_index_[^<>]*>(?:\s*</delimiter_of_multi_objects/>)?\s*)+")
_PHRASE = re.compile(r"<phrase>([^<]*)</phrase>\s*(?:<object>\s*)?\Z")
_PATCH = re.compile(r"<patch_index_([^<>]*)>")
_POINTS = re.compile(r'<points?\s+coords="([^"<>]*)"[^<>]*>([^<]*)(?:</points?>)?')
_PERCENT = re.compile(r"<points?\s+([^<>]*)>([^<]*)(?:</points?>)?")
_ATTRIBUTE = re.compile(r'([xy])(\d*)\s*=\s*"([^"]*)"')
_ALT = re.compile(r'alt\s*=\s*"([^"]*)"')


def write_qwen_tags(numbers: Sequence[float], label: str, convention: Convention) -> str:
    """Return Qwen2-VL's tags; a box is two pairs, a point one."""
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    place = ",".join(f"({x:.0f},{y:.0f})" for x, y in pairs)
    name = f"<|object_ref_start|>{label}<|object_ref_end|>" if label else ""
    return f"{name}<|box_start|>{place}<|box_end|>"


def read_qwen_tags(text: str, convention: Convention) -> Mentions:
    """Return the pairs of a reply; the text before one is its label, or the label goes on."""
    found, label, end = Mentions(), "", 0
    for match in _QWEN.finditer(text):
        label = _TAG.sub(" ", text[end : match.start()]).strip(_EDGES) or label
        parts = [part for pair in match.groups() if pair for part in pair.split(",")]
        numbers = numbers_of(parts, match[0])
        if len(numbers) not in (2, 4) or (len(numbers) == 4 and match[2] is None):
            raise RegionTextError(f"wrong count: {len(numbers)} numbers in {shown(match[0])}")
        found.items.append(Mention(label, numbers, match[0], len(numbers) == 2))
        end = match.end()
    rest = text[end:].rsplit("<|box_end|>", 1)[-1]
    if re.search(r"<\|box_start\|>|\([\d\s.,+\-]*$|^\s*,\s*$", rest):
        found.dropped = 1
        if found.items and rest.lstrip().startswith(",") and found.items[-1].is_point:
            found.items.pop()  # the first corner of a box that is cut
    return found


def write_ref_box(numbers: Sequence[float], label: str, convention: Convention) -> str:
    """Return InternVL's tags."""
    listed = ", ".join(f"{number:.0f}" for number in numbers)
    return f"<ref>{label}</ref><box>[[{listed}]]</box>"


def read_ref_box(text: str, convention: Convention) -> Mentions:
    """Return the boxes of a reply; several may share a label."""
    found = Mentions()
    for match in _REF_BOX.finditer(text):
        lists = _LIST.findall(match[2])
        for content in lists:
            numbers = numbers_of(content.split(","), match[0])
            found.items.append(_boxed((match[1] or "").strip(), numbers, match[0]))
        if not match[3]:
            found.dropped += match[2].count("[") > len(lists) + match[2].startswith("[[")
            found.dropped += not lists and not found.dropped
        elif not lists:
            raise RegionTextError(f"no numbers: {shown(match[0])}")
    return found


def write_loc4(numbers: Sequence[float], label: str, convention: Convention) -> str:
    """Return PaliGemma's four tokens and the label."""
    tokens = "".join(f"<loc{number:04.0f}>" for number in numbers)
    return f"{tokens} {label}".rstrip()


def read_loc4(text: str, convention: Convention) -> Mentions:
    """Return the boxes of a reply; tokens of masks (`<seg012>`) are passed over."""
    found = Mentions()
    for match in _LOC4.finditer(text):
        numbers = numbers_of(_LOC.findall(match[1]), match[0])
        _add_fours(found, numbers, match[2].strip(_EDGES), match, text)
    return _with_open_tag(found, text)


def write_loc_bins(numbers: Sequence[float], label: str, convention: Convention) -> str:
    """Return the label and Florence-2's four tokens."""
    return label + "".join(f"<loc_{number:.0f}>" for number in numbers)


def read_loc_bins(text: str, convention: Convention) -> Mentions:
    """Return the boxes of a reply; several may share a label."""
    found, end = Mentions(), 0
    for match in _LOC_BINS.finditer(text):
        label = text[end : match.start()].rpartition(">")[2].strip(_EDGES)
        _add_fours(found, numbers_of(_BIN.findall(match[0]), match[0]), label, match, text)
        end = match.end()
    return _with_open_tag(found, text)


def write_patches(numbers: Sequence[float], label: str, convention: Convention) -> str:
    """Return Kosmos-2's phrase and the two cells of its box."""
    cells = "".join(f"<patch_index_{number:04.0f}>" for number in numbers)
    phrase = f"<phrase>{label}</phrase>" if label else ""
    return f"{phrase}<object>{cells}</object>"


def read_patches(text: str, convention: Convention) -> Mentions:
    """Return the pairs of cells of a reply; several may share a phrase."""
    found, end = Mentions(), 0
    for match in _PATCHES.finditer(text):
        phrase = _PHRASE.search(text, end, match.start())
        end = match.end()
        label = phrase[1].strip() if phrase else ""
        numbers = numbers_of(_PATCH.findall(match[0]), match[0])
        pairs = zip(numbers[::2], numbers[1::2], strict=False)
        found.items += [Mention(label, pair, match[0]) for pair in pairs]
        if len(numbers) % 2:
            _cut(found, match, text)
    return _with_open_tag(found, text)


def write_points(numbers: Sequence[float], label: str, convention: Convention) -> str:
    """Return Molmo 2's tag of one point: picture 1, point 1, x and y with three digits."""
    x, y = (f"{number:03.0f}" for number in numbers)
    return f'<points coords="1 1 {x} {y}">{label}</points>'


def read_points(text: str, convention: Convention) -> Mentions:
    """Return the points of a reply; raises `RegionTextError` for a second picture."""
    found = Mentions()
    for match in _POINTS.finditer(text):
        numbers = numbers_of(match[1].split(), match[0])
        if len(numbers) < 4 or len(numbers) % 3 != 1:
            raise RegionTextError(f"wrong count: {len(numbers)} numbers in {shown(match[0])}")
        if numbers[0] != 1:
            raise RegionTextError(f"unknown picture: {numbers[0]:g} in {shown(match[0])}")
        label = match[2].strip()
        for start in range(1, len(numbers), 3):
            found.items.append(Mention(label, numbers[start + 1 : start + 3], match[0], True))
    return _with_open_tag(found, text)


def join_points(items: Sequence[Mention]) -> str:
    """Return Molmo 2's reply: a tag for each label, points sorted and numbered."""
    tags = []
    for label in dict.fromkeys(item.label for item in items):
        points = sorted(item.numbers for item in items if item.label == label)
        coords = " ".join(f"{n} {x:03.0f} {y:03.0f}" for n, (x, y) in enumerate(points, 1))
        tags.append(f'<points coords="1 {coords}">{label}</points>')
    return " ".join(tags) or "There are none."


def write_point_percent(numbers: Sequence[float], label: str, convention: Convention) -> str:
    """Return Molmo's tag of one point."""
    x, y = numbers
    name = html.escape(label)
    return f'<point x="{x:.1f}" y="{y:.1f}" alt="{name}">{label}</point>'


def read_point_percent(text: str, convention: Convention) -> Mentions:
    """Return the points of a reply, `x`, `y` of one and `x1`, `y1`, `x2` .. of several."""
    found = Mentions()
    for match in _PERCENT.finditer(text):
        sides: dict[tuple[str, str], str] = {}
        for axis, number, value in _ATTRIBUTE.findall(match[1]):
            if (axis, number) in sides:
                raise RegionTextError(f"two of a key: {axis}{number} in {shown(match[0])}")
            sides[axis, number] = value
        names = list(dict.fromkeys(number for _, number in sides))
        if not names or any((axis, name) not in sides for axis in "xy" for name in names):
            raise RegionTextError(f"wrong count: x without y in {shown(match[0])}")
        alt = _ALT.search(match[1])
        label = match[2].strip() or (html.unescape(alt[1]).strip() if alt else "")
        for name in names:
            numbers = numbers_of((sides["x", name], sides["y", name]), match[0])
            found.items.append(Mention(label, numbers, match[0], True))
    return _with_open_tag(found, text)


def join_point_percent(items: Sequence[Mention]) -> str:
    """Return Molmo's reply: a tag for each label."""
    tags = []
    for label in dict.fromkeys(item.label for item in items):
        points = [item.numbers for item in items if item.label == label]
        if len(points) == 1:
            x, y = points[0]
            tags.append(
                f'<point x="{x:.1f}" y="{y:.1f}" alt="{html.escape(label)}">{label}</point>'
            )
            continue
        places = " ".join(f'x{n}="{x:.1f}" y{n}="{y:.1f}"' for n, (x, y) in enumerate(points, 1))
        tags.append(f'<points {places} alt="{html.escape(label)}">{label}</points>')
    return " ".join(tags) or "There are none."


def _boxed(label: str, numbers: tuple[float, ...], text: str) -> Mention:
    if len(numbers) != 4:
        raise RegionTextError(f"wrong count: {len(numbers)} numbers in {shown(text)}")
    return Mention(label, numbers, text)


def _add_fours(
    found: Mentions, numbers: tuple[float, ...], label: str, match: re.Match[str], text: str
) -> None:
    """Add boxes of four tokens each; fewer at the reply's end are of one that is cut."""
    whole = len(numbers) // 4 * 4
    for start in range(0, whole, 4):
        found.items.append(_boxed(label, numbers[start : start + 4], match[0]))
    if whole < len(numbers):
        _cut(found, match, text)


def _cut(found: Mentions, match: re.Match[str], text: str) -> None:
    """Count a region that is not whole at the reply's end; elsewhere it is an error."""
    if re.search(r"<(?:loc|patch)[^<>]*>", text[match.end() :]):
        raise RegionTextError(f"wrong count: {shown(match[0])}")
    found.dropped += 1


def _with_open_tag(found: Mentions, text: str) -> Mentions:
    """Count a tag or token that the reply's end cuts, unless its region is counted already."""
    if not found.dropped and re.search(r"<(?:points?\b|loc|patch)[^<>]*$", text):
        found.dropped += 1
    return found


Writer = Callable[[Sequence[float], str, Any], str]
Reader = Callable[[str, Any], Mentions]
