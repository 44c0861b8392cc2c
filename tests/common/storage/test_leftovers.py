"""What killed processes left is told from what others are writing."""

import os
import time

from lavis.common.storage import leftovers as storage
from lavis.common.storage.leftovers import remove_leftovers


def test_leftovers_of_other_machines_go_by_age_and_of_reused_numbers_by_start(tmp_path):
    host, me = storage._host(), os.getpid()
    start = storage._process_start(me)
    fresh_elsewhere = tmp_path / f".a.deadbeef-{me}-{start}-00000000.part"
    old_elsewhere = tmp_path / f".b.deadbeef-{me}-{start}-00000000.part"
    reused = tmp_path / f".c.{host}-{me}-1-00000000.part"
    mine = tmp_path / f".d.{host}-{me}-{start}-00000000.part"
    foreign = tmp_path / ".users.part"
    for path in (fresh_elsewhere, old_elsewhere, reused, mine, foreign):
        path.touch()
    long_ago = time.time() - (storage.LEFTOVER_DAYS + 1) * 24 * 3600
    for path in (old_elsewhere, foreign):
        os.utime(path, (long_ago, long_ago))
    assert remove_leftovers(tmp_path) == 2
    assert set(tmp_path.iterdir()) == {fresh_elsewhere, mine, foreign}


def test_folders_below_are_looked_through_as_deep_as_asked(tmp_path):
    name = f".a.{storage._host()}-{os.getpid()}-1-00000000.part"
    for folder in ("kept", "kept/deeper"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).touch()
    assert remove_leftovers(tmp_path, depth=1) == 1
    assert (tmp_path / "kept/deeper" / name).exists()


def test_a_name_tells_its_writer_and_fits_into_a_folder(tmp_path):
    name = storage.part_name(tmp_path / ("a" * 250)).name
    start = storage._process_start(os.getpid())
    assert len(name) == 255 and name.startswith(".aaa") and name.endswith(".part")
    assert f".{storage._host()}-{os.getpid()}-{start}-" in name


def test_a_forked_copy_of_a_writer_removes_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    storage.remove(str(tmp_path / "folder"), os.getpid() + 1)
    assert (tmp_path / "folder" / "file").exists()
    storage.remove(str(tmp_path / "folder"), os.getpid())
    assert list(tmp_path.iterdir()) == []
