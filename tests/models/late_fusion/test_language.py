"""Texts that share beginnings give what each of them gives alone, in every family."""

import pytest
import torch

from lavis.models.late_fusion.mixing import Mixing

BEGINNINGS = ([2, 5, 6, 7, 8, 9, 10, 11, 12], [2, 20, 21])
RESTS = ((0, [30]), (0, [31, 32, 33, 34, 35, 36, 37]), (1, [40, 41]), (1, [42]), (0, [30, 43]))
WIDTH, REST = 9, 7


@pytest.fixture
def branches():
    ids = torch.zeros(len(RESTS), WIDTH + REST, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (of, rest) in enumerate(RESTS):
        text = [*BEGINNINGS[of], *rest]
        begin = WIDTH - len(BEGINNINGS[of])
        ids[row, begin : begin + len(text)] = torch.tensor(text)
        mask[row, begin : begin + len(text)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def starts_of(model):
    return model.shared_starts(WIDTH, torch.tensor([0, 2]), torch.tensor([of for of, _ in RESTS]))


@pytest.mark.parametrize("kind_of_mix", ["logits", "probs"])
def test_branches_equal_texts_alone(make_model, images, kind, branches, kind_of_mix):
    model, seen = make_model(kind), images(len(RESTS))
    text = model.encode_text(**branches, starts=starts_of(model))
    ways = {"text": Mixing(kind_of_mix, num_images=0), "seen": Mixing(kind_of_mix)}
    reads = 3
    last = text.last()
    positions = (last[:, None] - torch.arange(reads)).clamp(min=0)
    given = {**branches, "text_hidden": text.hidden, "positions": positions, **seen}
    found = model.predict(given, ways)
    for row, (of, rest) in enumerate(RESTS):
        ids = torch.tensor([[*BEGINNINGS[of], *rest]])
        length = ids.shape[1]
        own = {name: seen[name][row : row + 1] for name in ("image_index", "scores")}
        alone = model.predict(
            {
                "input_ids": ids,
                "positions": length - 1 - torch.arange(reads)[None],
                "vision_features": seen["vision_features"],
                **own,
            },
            ways,
        )
        for name, expected in alone.items():
            torch.testing.assert_close(found[name][row : row + 1], expected, atol=2e-4, rtol=1e-4)


def test_beginnings_run_once(make_model, causal, branches, monkeypatch):
    model = make_model(causal)
    seen, hidden = [], type(model.language).hidden

    def counted(language, ids, mask, past=None):
        seen.append(tuple(ids.shape))
        return hidden(language, ids, mask, past)

    monkeypatch.setattr(type(model.language), "hidden", counted)
    model.encode_text(**branches, starts=starts_of(model))
    assert seen == [(2, WIDTH), (len(RESTS), REST)]


def test_one_text_stands_for_several_rows(make_model, texts, images, kind):
    model, sample, seen = make_model(kind), texts(first=2), images(5)
    of = torch.tensor([2, 0, 0, 1, 2])
    positions = torch.tensor([[1, 2], [8, 3], [0, 1], [5, 5], [2, 0]])
    ids = torch.arange(40).view(5, 2, 4)
    given = {"positions": positions, "token_ids": ids, **seen}
    ways = {"mixed": Mixing("probs"), "logits": Mixing("logits"), "sure": Mixing(weights="entropy")}
    found = model.predict({**sample, "text_index": of, **given}, ways)
    repeated = {name: value[of] for name, value in sample.items()}
    for name, expected in model.predict({**repeated, **given}, ways).items():
        torch.testing.assert_close(found[name], expected, atol=2e-4, rtol=1e-4)
    whole = model.predict({**repeated, "positions": positions, **seen}, ways, details=True)
    some = model.predict({**repeated, **given}, ways, details=True)
    for name in ("log_probs.mixed", "log_probs.sure", "text_log_probs"):
        torch.testing.assert_close(some[name], whole[name].gather(-1, ids), atol=2e-4, rtol=1e-4)
