"""Blocks of tokens: cut from all lines, the rest left out."""

import pytest

from lavis.common.errors import DataError
from lavis.datasets.captions.token_blocks import TokenBlocks, find_corpus, read_lines, write_blocks


def letters(lines):
    return [[ord(letter) for letter in line] for line in lines]


def test_lines_are_put_one_behind_the_other_and_cut(tmp_path):
    write_blocks(tmp_path / "t", ["ab", "", "cde", "fg"], letters, 3)
    blocks = TokenBlocks(tmp_path / "t", 3)
    assert [blocks[place] for place in range(len(blocks))] == [[97, 98, 99], [100, 101, 102]]
    with pytest.raises(IndexError, match="block 2 of 2"):
        blocks[2]
    with pytest.raises(DataError, match="only 2 tokens, which fill no block of 3"):
        write_blocks(tmp_path / "u", ["ab"], letters, 3)


def test_a_split_is_found_by_its_name_and_blank_lines_are_empty(tmp_path):
    for split in ("train", "valid"):
        (tmp_path / f"wiki.{split}.raw").write_text(f"{split}\n \n")
    (path,) = find_corpus(str(tmp_path), "validation")
    assert list(read_lines(path, "text")) == ["valid\n", ""]
