"""A unit is done again when a file of it changed, and only then."""

import os
import shutil
import time

import pytest

from lavis.common.storage.inputs import Changed, Input, Watch, changed_units


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "deep/c.jpg"):
        (folder / name).write_bytes(name.encode() * 10)
    time.sleep(0.02)  # so that a later write has another time stamp
    return folder


NAMES = ("a.jpg", "b.jpg", "deep/c.jpg", "missing.jpg")


def noted(folder, names=NAMES, **options):
    """Return the notes of units of one file each, as the journal gives them back."""
    found = []
    for unit, name in enumerate(names):
        watch = Watch([str(folder)], **options)
        watch.add(Input(str(folder / name)))
        found.append((unit, watch.notes(), [os.path.realpath(folder)]))
    return found


def changed(notes, folder):
    return changed_units(notes, [str(folder)])


def edit(path, content, *, keep_time=False):
    before = os.stat(path)
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_nothing_changed(images):
    assert changed(noted(images), images) == []


def test_notes_hold_name_state_and_digest(images):
    (_, [[place, name, state, digest]], _), *_, (_, [missing], _) = noted(images)
    status = os.stat(images / "a.jpg")
    assert (place, name) == (0, "a.jpg") and len(digest) == 32
    assert state == [50, status.st_mtime_ns, status.st_ctime_ns]
    assert missing == [0, "missing.jpg", None, None]


@pytest.mark.parametrize("keep_time", [False, True])
def test_an_edited_image_changes_its_unit_even_where_size_and_time_are_kept(images, keep_time):
    notes = noted(images)
    edit(images / "deep/c.jpg", b"deep/d.jpg" * 10, keep_time=keep_time)
    assert changed(notes, images) == [Changed(2, "deep/c.jpg", False)]


def test_an_image_that_vanished_or_appeared_changes_its_unit(images):
    notes = noted(images)
    (images / "b.jpg").unlink()
    (images / "missing.jpg").write_bytes(b"here")
    assert changed(notes, images) == [
        Changed(1, "b.jpg", False),
        Changed(3, "missing.jpg", False),
    ]


def test_touched_and_copied_files_are_the_same(images, tmp_path):
    notes = noted(images)
    os.utime(images / "a.jpg", (0, 0))
    os.chmod(images / "b.jpg", 0o600)
    assert changed(notes, images) == []
    other = tmp_path / "copied"
    shutil.copytree(images, other)
    assert changed(notes, other) == []
    edit(other / "b.jpg", b"c.jpg" * 10)
    assert changed(notes, other) == [Changed(1, "b.jpg", True)]


def test_without_digests_a_touched_file_counts_as_changed(images):
    notes = noted(images, with_digests=False)
    assert changed(notes, images) == []
    os.utime(images / "a.jpg", (0, 0))
    assert changed(notes, images) == [Changed(0, "a.jpg", False)]


def test_a_file_that_changed_while_it_was_read_is_done_again(images):
    watch = Watch([str(images)])
    watch.add(Input(str(images / "a.jpg")))
    edit(images / "a.jpg", b"other")
    (note,) = watch.notes()
    assert note[2] is False
    assert changed([(0, [note], [str(images)])], images) == [Changed(0, "a.jpg", False)]


def test_members_of_a_tar_change_one_by_one(tmp_path):
    tar = tmp_path / "0.tar"
    tar.write_bytes(b"head" + b"a" * 100 + b"b" * 100)
    time.sleep(0.02)
    notes = []
    for unit, offset in enumerate((4, 104)):
        watch = Watch([str(tmp_path)])
        watch.add(Input(str(tar), ((offset, 100),)))
        notes.append((unit, watch.notes(), [str(tmp_path)]))
    edit(tar, b"head" + b"a" * 100 + b"c" * 100 + b"more")
    assert changed(notes, tmp_path) == [Changed(1, "0.tar", False)]


def test_many_units_are_compared_in_their_order(images):
    notes = [(unit, found, there) for unit in range(500) for _, found, there in noted(images)[:1]]
    edit(images / "a.jpg", b"other")
    ticks = []
    found = changed_units(notes, [str(images)], tick=ticks.append)
    assert [one.unit for one in found] == list(range(500))
