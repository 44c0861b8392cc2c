"""JSON among other words, with slips, and cut off: what is whole, what broke, and where it ends."""

import pytest

from lavis.llm.replies.json_reading import Broken, JsonList, JsonObject, Scalar, scan_json


def plain(node):
    """Return what `json.loads` would make of a node, scalars as they are written."""
    if isinstance(node, JsonObject):
        return {key: plain(value) for key, value in node.pairs}
    if isinstance(node, JsonList):
        return [plain(value) for value in node.values]
    return node.text if isinstance(node, Scalar) else node


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('Sure: {"a": [1, "b"]}.', {"a": ["1", "b"]}),
        ("{'a': None, b: True,}", {"a": "None", "b": "True"}),
        ('{“a”: "x\ny" "c": "z"}', {"a": "x\ny", "c": "z"}),
        (r'{"a": "\u00e9\ud83d\ude00\n"}', {"a": "é😀\n"}),
    ],
)
def test_slips_of_models_are_read(text, value):
    scan = scan_json(text)
    assert [plain(root) for root in scan.roots] == [value] and not scan.is_cut


def test_of_a_cut_text_what_is_whole_inside_comes_out_and_nothing_is_made_up():
    text = '{"items": [{"q": "one"}, {"q": "two'
    scan = scan_json(text)
    whole = [root for root in scan.roots if isinstance(root, JsonObject)]
    broken = [root for root in scan.roots if isinstance(root, Broken)]
    assert [plain(root) for root in whole] == [{"q": "one"}] and whole[0].loose
    assert [sorted(each.keys) for each in broken] == [["items"], ["q"]]
    assert all(each.cut for each in broken) and scan.cut_at == 0 and scan.is_cut


def test_a_whole_object_before_the_cut_is_kept_as_it_is():
    scan = scan_json('{"a": "b"} and then {"c":')
    assert plain(scan.roots[0]) == {"a": "b"} and scan.cut_at == 20 and not scan.is_cut


def test_of_two_equal_keys_both_are_kept_whatever_their_case():
    (node,) = scan_json('{"A": "1", "a": "2"}').roots
    assert node.all("a") == ["1", "2"]
