"""Images and boxes of VCR, Visual Genome, COCO, LCK and own files, as lines of one form.

A line is `{"image", "regions": [{"name", "boxes": [[x1, y1, x2, y2]], "obj_guess", ...}]}`, one
per image, with `keep_ids` where other files refer to the region numbers. Only the form is checked;
a box without one becomes `{"name", "reject": reason}`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lavis.common.errors import (
    REFUSALS,
    DataError,
    RecordError,
    brief,
    finite,
    printable,
    record_errors,
)
from lavis.common.pixels import IMAGE_SUFFIXES
from lavis.datasets.files.folders import Skipped, is_above, is_hidden
from lavis.datasets.files.formats import open_file
from lavis.datasets.files.items import begins_with, read_list
from lavis.datasets.files.records import JsonLinesFile, parse_object
from lavis.datasets.lck.mapping import image_hashes
from lavis.datasets.lck.record import index_entries, read_references
from lavis.datasets.lck.scenes import NOTES, ScenesConfig

logger = logging.getLogger(__name__)

_FILE_ERRORS: tuple[type[Exception], ...] = (OSError, *REFUSALS)
Line = dict[str, Any]
_VG_FOLDERS = ("VG_100K", "VG_100K_2", "")


def image_lines(config: ScenesConfig) -> Iterator[Line]:
    """Yield a line per image, in the order of the source; raises `DataError` for another form."""
    count = 0
    for line in _lines(config):
        yield line
        count += 1
        if count == config.limit:
            return
    if not count:
        raise DataError(f"{config.regions or config.root}: no images")


def line_bytes(line: Line) -> bytes:
    """Return a line as stored; one that could not be read again becomes a reject."""
    try:
        with record_errors("malformed record"):
            data = json.dumps(line).encode("ascii")
            parse_object(data)
    except RecordError as error:
        name = printable(str(line.get("image"))[:300])
        data = json.dumps({"image": name, "reject": error.reason}).encode("ascii")
    return data + b"\n"


def _lines(config: ScenesConfig) -> Iterator[Line]:
    root = os.path.expanduser(config.root)
    if config.regions is None:
        return _images_of(root)
    path = os.path.expanduser(config.regions)
    if os.path.isdir(path):
        if config.format not in ("auto", "vcr"):
            raise DataError(f"{path}: a file was expected for format '{config.format}'")
        return _vcr_folder(path, root)
    name = path.lower()
    if config.format == "coco" or (
        config.format == "auto" and name.endswith(".json") and begins_with(path, b"{")
    ):
        return _coco(path)
    if config.format == "vg" or (config.format == "auto" and name.endswith((".json", ".zip"))):
        return _visual_genome(path, root)
    return _json_lines(path, root, config)


def _images_of(root: str) -> Iterator[Line]:
    skipped = Skipped()
    for name in _files(root, root, IMAGE_SUFFIXES, skipped):
        if printable(name) != name:  # no record could name it
            shown = printable(name)
            yield {"image": shown, "reject": f"file name that is not UTF-8: {shown}"}
        else:
            yield {"image": name, "regions": []}
    skipped.log(root)


def _files(folder: str, root: str, endings: Sequence[str], skipped: Skipped) -> Iterator[str]:
    """Yield the names of files below a folder relative to `root`, sorted folder by folder."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        name = os.path.relpath(entry.path, root).replace(os.sep, "/")
        if is_hidden(entry.name):
            skipped.add("names of the system (with a dot first)", name)
        elif entry.is_dir():
            if entry.is_symlink() and is_above(entry.path, folder):
                skipped.add("links to a folder above", name)
            else:
                yield from _files(entry.path, root, endings, skipped)
        elif entry.name.lower().endswith(tuple(endings)):
            yield name
        else:
            ending = os.path.splitext(entry.name)[1].lower()
            skipped.add(f"files {ending}" if ending else "files without an ending", name)


def _entry(place: int, box: Any, name: object, **more: Any) -> dict[str, Any]:
    if not isinstance(box, (list, tuple)) or len(box) < 4:
        return {"name": str(place), "reject": f"has {json.dumps(box)[:60]}, expected 4 numbers"}
    entry = {"name": str(place), "boxes": [list(box)], "obj_guess": str(name or "")}
    return entry | {key: value for key, value in more.items() if value not in (None, "", [])}


def _from_xywh(box: Any) -> Any:
    """Return corners of x, y, width, height; anything else unchanged, for the check to name."""
    if not isinstance(box, (list, tuple)) or len(box) != 4:
        return box if not isinstance(box, (list, tuple)) else list(box)[:3]
    if any(finite(number) is None for number in box):
        return list(box)
    x, y, width, height = box
    return [x, y, x + width, y + height]


# --- VCR


def _vcr_folder(folder: str, root: str) -> Iterator[Line]:
    skipped = Skipped()
    for name in _files(folder, root, (".json",), skipped):
        yield _vcr_line(printable(f"{name[:-5]}.jpg"), os.path.join(root, name))
    for kind in [kind for kind in skipped.counts if kind.endswith(IMAGE_SUFFIXES)]:
        del skipped.counts[kind]  # the images themselves
    skipped.log(folder)


def _vcr_line(image: str, metadata: str) -> Line:
    """Return an image's line; boxes are x1, y1, x2, y2, score, and ids are their places."""
    name = printable(os.path.basename(metadata))
    try:
        content = Path(metadata).read_bytes()
    except (OSError, ValueError):
        return {"image": image, "reject": f"missing metadata: {name}"}
    try:
        with record_errors("malformed metadata"):
            node = parse_object(content)
            boxes, names = node["boxes"], node["names"]
            segments = node.get("segms") or [None] * len(boxes)
            regions = [
                _entry(place, box, name, segms=segment)
                for place, (box, name, segment) in enumerate(
                    zip(boxes, names, segments, strict=True)
                )
            ]
    except RecordError as error:
        return {"image": image, "reject": f"malformed metadata: {error.reason}"[:200]}
    return {"image": image, "regions": regions, "keep_ids": True}


# --- Visual Genome


def _visual_genome(path: str, root: str) -> Iterator[Line]:
    """Boxes are x, y and `w`, `h` (objects, attributes) or `width`, `height` (descriptions)."""
    kinds = ("objects", "attributes", "regions")
    for number, item in enumerate(read_list(path), 1):
        kind = next((k for k in kinds if isinstance(item, dict) and k in item), None)
        if kind is None and number == 1:
            raise DataError(
                f"{path}: no 'objects', 'attributes' or 'regions' in its items, so it is none of "
                "Visual Genome's files; set images.format"
            )
        try:
            with record_errors("malformed item"):
                if kind is None:
                    raise RecordError(f"malformed item: none of {', '.join(kinds)}")
                regions = [_vg_entry(place, region) for place, region in enumerate(item[kind])]
                image = _vg_image(item, root)
        except RecordError as error:
            yield {"image": f"item {number} of {os.path.basename(path)}", "reject": error.reason}
        else:
            yield {"image": image, "regions": regions}


def _vg_entry(place: int, region: Mapping[str, Any]) -> dict[str, Any]:
    """Return a region, or a reject with its reason."""
    try:
        with record_errors("wrong type"):
            width = region.get("w", region.get("width"))
            height = region.get("h", region.get("height"))
            box = _from_xywh([region.get("x"), region.get("y"), width, height])
            more = {"caption": region.get("phrase"), "attributes": region.get("attributes")}
            return _entry(place, box, (region.get("names") or [""])[0], **more)
    except RecordError as error:
        return {"name": str(place), "reject": error.reason}


def _vg_image(item: Mapping[str, Any], root: str) -> str:
    url = item.get("image_url")
    if isinstance(url, str):
        name = "/".join(url.split("/")[-2:])
        if os.path.exists(os.path.join(root, name)):
            return name
    number = item.get("image_id", item.get("id"))
    for folder in _VG_FOLDERS:
        name = f"{folder}/{number}.jpg".lstrip("/")
        if os.path.exists(os.path.join(root, name)):
            return name
    return f"{number}.jpg"


# --- COCO


def _coco(path: str) -> Iterator[Line]:
    """`bbox` is x, y, width, height; annotations of crowds are left out. Read as a whole, once."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            content = json.load(file)
        images, annotations = content["images"], content["annotations"]
        labels = content.get("categories", [])
        if not all(isinstance(part, list) for part in (images, annotations, labels)):
            raise TypeError("images, annotations and categories are lists")
    except _FILE_ERRORS as error:
        raise DataError(
            f"{path}: not COCO instances ({brief(error)}); 'images' and 'annotations' were expected"
        ) from None
    categories = {str(c.get("id")): c.get("name") for c in labels if isinstance(c, dict)}
    by_image: dict[str, list[Any]] = {}
    lost = 0
    for item in annotations:
        if not isinstance(item, dict) or "image_id" not in item:
            lost += 1
        elif not item.get("iscrowd"):
            named = (item.get("bbox"), categories.get(str(item.get("category_id")), ""))
            by_image.setdefault(str(item["image_id"]), []).append(named)
    if lost:
        logger.warning("%s: %d annotations of no image, passed over", path, lost)
    del content, annotations
    for number, item in enumerate(images, 1):
        if not isinstance(item, dict) or not {"id", "file_name"} <= item.keys():
            where = f"images, item {number} of {os.path.basename(path)}"
            yield {"image": where, "reject": "malformed item: no id and file_name"}
            continue
        boxes = by_image.pop(str(item["id"]), [])
        regions = [_entry(p, _from_xywh(box), label) for p, (box, label) in enumerate(boxes)]
        yield {"image": item["file_name"], "regions": regions}


# --- lines of JSON


def _json_lines(path: str, root: str, config: ScenesConfig) -> Iterator[Line]:
    for file in open_file(path):
        if not isinstance(file, JsonLinesFile):
            raise DataError(f"{path}: lines of JSON were expected")
        for rows, reason in _by_image(file):
            if reason:
                line = file.place(int(rows[0]))["line"]
                where = printable(f"line {line} of {os.path.basename(path)}")
                yield {"image": where, "reject": reason}
                continue
            records = [file.read(int(row)) for row in rows]
            try:
                with record_errors("malformed record"):
                    yield _merged(records, root, config)
            except RecordError as error:
                yield {"image": _name_of(records[-1]), "reject": error.reason}


def _name_of(record: Mapping[str, Any]) -> Any:
    return record.get("image", record.get("img_fn"))


def _by_image(file: JsonLinesFile) -> Iterator[tuple[np.ndarray, str]]:
    """Yield each image's rows, by first row, and why a line is bad; holds 16 bytes a row."""
    hashes, reasons = image_hashes(file, _name_of)
    if len(reasons) == len(file):
        reason = next(iter(reasons.values()), "no lines")
        raise DataError(f"{file.path}: no line is a record with an 'image'; the first: {reason}")
    order = np.argsort(hashes, kind="stable")
    starts = np.flatnonzero(np.diff(hashes[order], prepend=hashes[order][:1] + np.uint64(1)))
    ends = np.append(starts[1:], len(order))
    for group in np.argsort(order[starts], kind="stable"):
        rows = order[starts[group] : ends[group]]
        yield rows, reasons.get(int(rows[0]), "")


def _merged(records: Sequence[Mapping[str, Any]], root: str, config: ScenesConfig) -> Line:
    """Return one image's line from its records."""
    last = records[-1]
    if "metadata_fn" in last:
        return _vcr_annotation(last, root)
    if "region_locations" in last:
        return _mapping(last)
    if "references" in last or "references_in_input" in last:
        return _references(records)
    regions: list[dict[str, Any]] = []
    for record in records:
        boxes, names = record.get("boxes") or [], record.get("names") or []
        if not isinstance(boxes, list) or not isinstance(names, list):
            raise RecordError("wrong type: boxes and names must be lists")
        for place, box in enumerate(boxes):
            corners = _from_xywh(box) if config.box_format == "xywh" else box
            name = names[place] if place < len(names) else ""
            regions.append(_entry(len(regions), corners, name))
    return {"image": last["image"], "regions": regions, "keep_ids": True}


def _vcr_annotation(record: Mapping[str, Any], root: str) -> Line:
    nested = os.path.isdir(os.path.join(root, "vcr1images"))
    prefix = "vcr1images/" if nested else ""
    image, metadata = record["img_fn"], str(record["metadata_fn"])
    return _vcr_line(f"{prefix}{image}", os.path.join(root, f"{prefix}{metadata}"))


def _mapping(record: Mapping[str, Any]) -> Line:
    entries = index_entries(record["region_locations"], "region_locations", named=False)
    kept = {key: record[key] for key in NOTES if key in record}
    return {"image": record["image"], "regions": _named(entries), "keep_ids": True, **kept}


def _references(records: Sequence[Mapping[str, Any]]) -> Line:
    entries: dict[int, Any] = {}
    for record in records:  # each names the regions of its own prompt
        for number, entry in read_references(record).items():
            entries.setdefault(number, entry)
    return {"image": records[-1]["image"], "regions": _named(entries), "keep_ids": True}


def _named(entries: Mapping[int, Any]) -> list[dict[str, Any]]:
    regions = []
    for number in sorted(entries):
        entry = entries[number]
        if not isinstance(entry, Mapping):
            regions.append({"name": str(number), "reject": "is no object"})
            continue
        kept = {key: value for key, value in entry.items() if value is not None}
        regions.append({**kept, "name": str(number)})
    return regions
