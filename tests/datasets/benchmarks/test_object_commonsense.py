"""Colours, shapes and sizes of objects; values by hand."""

from __future__ import annotations

import pytest
from benchmark_opening import make, questions, write_lines

from lavis.common.errors import RecordError


def test_objects_colours_and_shapes(tmp_path):
    memory = "Index,Descriptor,Item,Shape\r\n1,a,sunflower,yellow\r\n3,,ash,grey\r\n"
    (tmp_path / "memory_color_data.csv").write_text(memory, newline="")
    (tmp_path / "color-concrete-objects.csv").write_text("object,color\nbanana,yellow\nash,grey\n")
    (tmp_path / "shape.csv").write_text("Index,Descriptor,Item,Shape\r\n1,,coin,round\r\n")
    write_lines(tmp_path / "color.jsonl", [{"sub": "clock", "obj": "white", "alt": "silver"}])
    sunflower, ash = questions(make("memory_color", tmp_path))
    assert len(sunflower.prompts) == 9
    assert sunflower.prompts[0] == "Q: What is the color of a sunflower? A: It is"
    assert ash.prompts[8] == "ash usually has the color of"
    assert ash.options == ("yellow", "grey")
    assert questions(make("memory_color", tmp_path, unify_grey=True))[1].gold == "gray"
    banana = make("color_terms", tmp_path).question(0)
    assert (banana.prompts[4], banana.gold) == ("The color of banana is", "yellow")
    coin = make("object_shape", tmp_path).question(0)
    assert (coin.prompts[5], coin.gold) == ("The usual shape of coin is", "round")
    assert make("vicomte_color", tmp_path).question(0).gold == "white"


def test_sizes_are_also_asked_the_other_way_round(tmp_path):
    lines = "Descriptor1,Item1,Descriptor2,Item2,Label\nan,airplane,an,apple,yes\n"
    (tmp_path / "size.csv").write_text(lines + "a,cat,a,dog,no\n")
    dataset = make("relative_size", tmp_path)
    with pytest.raises(RecordError, match="Label is 'no'"):
        dataset.question(0)
    plain, swapped = dataset.question(1), dataset.question(2)
    assert (plain.prompts[0], plain.gold) == ("Is an airplane bigger than an apple?", "yes")
    assert swapped.prompts[5] == "an apple is taller than an airplane, is it true?"
    assert (swapped.gold, swapped.group) == ("no", "relative_size_swapped")
    assert plain.image_text == swapped.image_text
    other = tmp_path / "other"
    other.mkdir()
    (other / "sizePairsFull.txt").write_text("an aeroplane an apple\n")
    assert make("relative_size", other).question(0).prompts[0].startswith("Is an aeroplane bigger")
    write_lines(other / "larger.jsonl", [{"sub": "door", "obj": "lip", "alt": "earth"}])
    write_lines(other / "smaller.jsonl", [{"sub": "horse", "obj": "tank", "alt": "pot"}])
    sizes = questions(make("vicomte_size", other))
    assert sizes[0].prompts[0] == "Is door bigger than lip?"
    assert sizes[2].prompts[0] == "Is tank bigger than horse?"
