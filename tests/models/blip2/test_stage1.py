"""Stage 1 against values of the released code, and two processes against one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from lavis.models.blip2.config import Stage1Config
from lavis.models.blip2.keys import lavis_name
from lavis.models.blip2.stage1 import (
    Blip2Stage1,
    Negatives,
    contrastive_loss,
    contrastive_targets,
    draw_negatives,
)


def close(actual, expected, tolerance=1e-4):
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def cases(stage1_golden):
    return json.loads((stage1_golden / "cases.json").read_text())


@pytest.fixture(scope="module")
def expected(stage1_golden):
    return load_file(stage1_golden / "outputs.safetensors")


@pytest.fixture(scope="module")
def features(stage1_golden):
    return load_file(stage1_golden / "features.safetensors")


@pytest.fixture(scope="module")
def image(stage1_golden):
    return load_file(stage1_golden / "inputs.safetensors")["image"]


@pytest.fixture(scope="module")
def model(stage1_state, tiny_sizes):
    built = Blip2Stage1(Stage1Config(**tiny_sizes, embed_dim=24))
    built.load_state(stage1_state, strict_frozen=True)
    return built.eval()


@pytest.mark.parametrize("start", [None, 0.5])
def test_the_temperature_starts_where_the_config_says(tiny_sizes, start):
    options = {} if start is None else {"temperature_init": start}
    model = Blip2Stage1(Stage1Config(**tiny_sizes, embed_dim=24, **options))
    assert model.temp.item() == pytest.approx(start or 0.07) and model.temp.requires_grad


def negatives(case):
    images, texts = (torch.tensor(case[f"neg_{k}_index"]) for k in ("image", "text"))
    every = torch.ones(len(images), dtype=torch.bool)
    return Negatives(images, texts, has_image=every, has_text=every)


@pytest.mark.parametrize("name", ["explicit", "seeded", "image_id"])
@pytest.mark.parametrize("drawn", [False, True])
def test_losses(model, cases, expected, image, name, drawn):
    case = cases["cases"][name]
    if drawn and "seed" not in case:
        pytest.skip("this case names its negatives")
    samples = {"image": image, "text_input": cases["texts"]}
    if "image_id" in case:
        samples["image_id"] = torch.tensor(case["image_id"])
    if drawn:
        torch.manual_seed(case["seed"])
    losses = model(samples, None if drawn else negatives(case))
    for part in ("loss_itc", "loss_itm", "loss_lm"):
        close(losses[part], expected[f"{name}.{part}"], 1e-5)
    close(losses["loss"], expected[f"{name}.loss"], 2e-5)  # a sum of three, about 22


def test_gradients(model, stage1_golden, cases, image):
    model.zero_grad()
    model({"image": image, "text_input": cases["texts"]}, negatives(cases["cases"]["explicit"]))[
        "loss"
    ].backward()
    gradients = {lavis_name(n): p.grad for n, p in model.named_parameters()}
    for name, value in load_file(stage1_golden / "gradients_explicit.safetensors").items():
        close(gradients[name], value, 1e-4 * max(1.0, value.abs().max().item()))
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@torch.no_grad()
def test_similarities_pairs_and_captions(model, cases, expected, image):
    image_embeds = model.image_embeds(model.encode_frozen(image))
    close(image_embeds, expected["image_embeds"])
    ids, mask = model.tokenize(cases["texts"])
    length = ids.shape[1]
    assert torch.equal(ids, expected["input_ids"][:, :length])
    queries, text_hidden = model.caption_pass(image_embeds, ids, mask)
    i2t, t2i = model.similarities(queries, model.text_pass(ids, mask)[:, 0])
    close(i2t, expected["explicit.sim_i2t"])
    close(t2i, expected["explicit.sim_t2i"])
    logits, labels = model.matching_pairs(
        image_embeds, ids, mask, negatives(cases["cases"]["explicit"])
    )
    close(logits, expected["explicit.itm_logits"])
    assert torch.equal(labels, expected["itm_labels"])
    decoder_ids = model.decoder_ids(ids)
    assert torch.equal(decoder_ids, expected["lm.decoder_input_ids"][:, :length])
    captions = model.caption_logits(text_hidden[:, :-1])
    seen = mask[:, 1:].bool()
    top = captions.topk(5)
    close(top.values[seen], expected["lm.top5_logits"][:, : length - 1][seen])
    log_probs = captions.log_softmax(dim=-1)
    label = log_probs.gather(-1, decoder_ids[:, 1:, None]).squeeze(-1)
    close(label[seen], expected["lm.label_log_prob"][:, : length - 1][seen])
    close(log_probs.mean(-1)[seen], expected["lm.mean_log_prob"][:, : length - 1][seen])


def test_words_do_not_change_what_queries_see(model, cases, image):
    image_embeds = model.image_embeds(model.encode_frozen(image))
    ids, mask = model.tokenize(cases["texts"])
    queries, _ = model.caption_pass(image_embeds, ids, mask)
    close(queries, model.image_pass(image_embeds), 1e-5)


def test_extracted_features(model, cases, features, image):
    samples = {"image": image, "text_input": cases["texts"]}
    found = model.extract_features(samples, "image")
    close(found.image_embeds, features["image.image_embeds"])
    close(found.image_embeds_proj, features["image.image_embeds_proj"])
    found = model.extract_features(samples, "text")
    seen = features["text.attention_mask"].bool()
    close(found.text_embeds[seen], features["text.text_embeds"][seen])
    close(found.text_embeds_proj[seen], features["text.text_embeds_proj"][seen])
    found = model.extract_features(samples)
    close(found.multimodal_embeds, features["multimodal.multimodal_embeds"])
    queries, image_embeds = model.forward_image(image)
    close(queries, features["forward_image.query_hidden"])
    close(image_embeds, features["forward_image.image_embeds"])
    ids, mask = model.tokenize(cases["texts"])
    close(model.forward_text(ids, mask), features["forward_text.cls_hidden"])


def test_match_logits_of_pairs_and_of_every_image_with_every_text(model, cases, features, image):
    image_embeds = model.image_embeds(model.encode_frozen(image))
    ids, mask = model.tokenize(cases["texts"])
    close(model.compute_itm(image_embeds, ids, mask), features["compute_itm.pairs"])
    every = model.predict(
        {
            "image": image,
            "text_input": cases["texts"] * 5,
            "image_index": [place for place in range(5) for _ in range(5)],
        }
    )
    close(every["logits"][:, 1].view(5, 5), features["compute_itm.matrix_image_by_text"])


def test_trainable_names(model, cases):
    trained = {lavis_name(n) for n, p in model.named_parameters() if p.requires_grad}
    encoder = "Qformer.bert.encoder."
    assert {n for n in trained if not n.startswith(encoder)} == set(cases["requires_grad"])
    assert trained == set(model.trainable_state_dict())


def test_a_row_without_negatives_takes_no_part():
    similarity = torch.zeros(3, 3)
    same = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 0]]).bool()
    drawn = draw_negatives(similarity, similarity, same)
    assert drawn.has_image.tolist() == [False, False, True]
    assert drawn.images[2] == 2 and drawn.texts[2] == 2


def test_activations_computed_again_give_the_same_gradients(stage1_state, tiny_sizes, cases, image):
    found = []
    for again in (False, True):
        config = Stage1Config(**tiny_sizes, embed_dim=24, use_grad_checkpoint=again)
        model = Blip2Stage1(config).train()
        model.load_state(stage1_state)
        torch.manual_seed(3)  # dropout, and the negatives
        losses = model({"image": image, "text_input": cases["texts"]})
        losses["loss"].backward()
        found.append([p.grad for p in model.parameters() if p.requires_grad])
    for one, other in zip(*found, strict=True):
        close(one, other, 1e-6)


def test_losses_in_half_precision_are_near(model, cases, image):
    samples = {"image": image, "text_input": cases["texts"]}
    chosen = negatives(cases["cases"]["explicit"])
    full = model(samples, chosen)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(samples, chosen)
    for name in ("loss_itc", "loss_itm", "loss_lm"):
        assert half[name].dtype == torch.float32
        assert abs(half[name] - full[name]) < 0.05 * full[name]


def test_one_pair_alone_is_a_batch(model, cases, image):
    losses = model({"image": image[:1], "text_input": cases["texts"][:1]})
    assert all(torch.isfinite(value) for value in losses.values())


def test_one_positive_gives_the_smoothed_cross_entropy():
    torch.manual_seed(0)
    i2t, t2i, own = torch.randn(4, 4), torch.randn(4, 4), torch.eye(4).bool()
    rows = torch.arange(4)
    expected = [F.cross_entropy(s, rows, label_smoothing=0.1) for s in (i2t, t2i)]
    close(contrastive_loss(i2t, t2i, own, torch.ones(4, 4).bool()), sum(expected) / 2, 1e-6)


def test_texts_may_share_an_image_of_the_batch(model, cases, image):
    losses = []
    for samples in (
        {"image": image[[0, 1, 0]]},
        {"image": image[:2], "image_index": torch.tensor([0, 1, 0])},
    ):
        torch.manual_seed(0)
        ids = torch.tensor([4, 5, 4])
        losses.append(model({**samples, "text_input": cases["texts"][:3], "image_id": ids})["loss"])
    close(losses[0], losses[1], 1e-5)


THIRD, ELSE = 0.1 / 3, 0.9 + 0.1 / 3  # smoothing is 0.1 over what is seen


@pytest.mark.parametrize(
    ("choice", "targets"),
    [  # rows 0 and 1 are of one image
        ("positives", [[0.45 + THIRD, 0.45 + THIRD, THIRD]] * 2 + [[THIRD, THIRD, ELSE]]),
        ("masked", [[0.95, 0.0, 0.05], [0.0, 0.95, 0.05], [THIRD, THIRD, ELSE]]),
        ("negatives", [[ELSE, THIRD, THIRD], [THIRD, ELSE, THIRD], [THIRD, THIRD, ELSE]]),
    ],
)
def test_texts_of_one_image_are_what_the_choice_says(choice, targets):
    own = torch.eye(3).bool()
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).bool()
    positives, seen = contrastive_targets(own, same, choice)
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.5, 1.5, 0.0], [2.0, 1.0, 4.0]])
    expected = 0.0
    for i, target in enumerate(targets):
        shown = [j for j in range(3) if choice != "masked" or i == 2 or j in (i, 2)]
        norm = torch.tensor([logits[i, j] for j in shown]).logsumexp(0)
        expected -= sum(target[j] * (logits[i, j] - norm) for j in shown) / 3
    close(contrastive_loss(logits, logits, positives, seen), expected, 1e-6)


@pytest.mark.parametrize("choice", ["positives", "masked", "negatives"])
def test_hard_negatives_never_show_the_same_image(
    stage1_state, tiny_sizes, cases, image, choice, monkeypatch
):
    model = Blip2Stage1(Stage1Config(**tiny_sizes, embed_dim=24, same_image=choice)).eval()
    model.load_state(stage1_state)
    ids = torch.tensor([7, 7, 9, 9])
    drawn = []
    matching = model.matching_pairs
    monkeypatch.setattr(
        model, "matching_pairs", lambda *given: drawn.append(given[3]) or matching(*given)
    )
    for seed in range(10):
        torch.manual_seed(seed)
        with torch.no_grad():
            model({"image": image[:4], "text_input": cases["texts"][:4], "image_id": ids})
    for found in drawn:
        for partners in (found.images, found.texts):
            assert (ids[partners] != ids).all()
    assert len({tuple(found.texts.tolist()) for found in drawn}) > 1


def test_scores_are_match_logits_and_best_cosines(model, cases, features, expected, image):
    texts = cases["texts"]
    samples = {
        "image": image,
        "text_input": texts * 5,
        "image_index": [place for place in range(5) for _ in texts],
    }
    scores = model.score(samples)
    close(scores["itm"].view(5, 5), features["compute_itm.matrix_image_by_text"])
    cosines = expected["explicit.sim_i2t"] * model.temp.detach()
    close(scores["itc"].view(5, 5), cosines)
    some = model.score({**samples, "text_input": texts[:3], "image_index": [4, 0, 4]})
    matrix = features["compute_itm.matrix_image_by_text"]
    close(some["itm"], torch.stack([matrix[4, 0], matrix[0, 1], matrix[4, 2]]))
    close(some["itc"], torch.stack([cosines[4, 0], cosines[0, 1], cosines[4, 2]]))


def test_scoring_encodes_an_image_once(model, cases, image, monkeypatch):
    images = []
    tower = model.visual_encoder.forward
    monkeypatch.setattr(
        model.visual_encoder, "forward", lambda x: images.append(len(x)) or tower(x)
    )
    model.score({"image": image[:1], "text_input": cases["texts"], "image_index": [0] * 5})
    assert images == [1]


RANKS = """
import multiprocessing, sys
import torch, torch.distributed as dist
from lavis.models.blip2.config import Stage1Config
from lavis.models.blip2.stage1 import Blip2Stage1, Negatives

def run(rank, store, inputs, out):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
    given = torch.load(inputs, weights_only=True)
    model = Blip2Stage1(Stage1Config(**given["config"])).eval()
    model.load_state(given["state"])
    rows = slice(2 * rank, 2 * rank + 2)
    every = torch.ones(2, dtype=torch.bool)
    negatives = Negatives(given["images"][rows], given["texts"][rows], every, every)
    losses = model({"image": given["image"][rows], "text_input": given["words"][rows]}, negatives)
    (losses["loss_itc"] + losses["loss_itm"]).backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    for grad in grads.values():
        dist.all_reduce(grad)
        grad /= 2
    if rank == 0:
        torch.save(grads, out)
    dist.barrier()

fork = multiprocessing.get_context("fork")  # the imports are paid once
ranks = [fork.Process(target=run, args=(rank, *sys.argv[1:])) for rank in range(2)]
for rank in ranks:
    rank.start()
for rank in ranks:
    rank.join(120)
sys.exit(any(rank.exitcode != 0 for rank in ranks))
"""


def test_two_processes_have_the_gradients_of_one(stage1_state, tiny_sizes, cases, image, tmp_path):
    config = {**tiny_sizes, "arch": "blip2", "embed_dim": 24}
    model = Blip2Stage1(Stage1Config(**config)).eval()
    model.load_state(stage1_state)
    images, texts = torch.tensor([2, 3, 1, 0]), torch.tensor([1, 2, 3, 0])
    every = torch.ones(4, dtype=torch.bool)
    words = cases["texts"][:4]
    losses = model(
        {"image": image[:4], "text_input": words}, Negatives(images, texts, every, every)
    )
    (losses["loss_itc"] + losses["loss_itm"]).backward()
    given = {"config": config, "state": stage1_state, "images": images, "texts": texts}
    torch.save({**given, "image": image[:4], "words": words}, tmp_path / "inputs.pt")
    (tmp_path / "ranks.py").write_text(RANKS)
    paths = [str(tmp_path / name) for name in ("ranks.py", "store", "inputs.pt", "grads.pt")]
    root = str(Path(__file__).parents[3])
    env = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *paths], env=env, check=True, timeout=180)
    found = torch.load(tmp_path / "grads.pt", weights_only=True)
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            close(found[name], weight.grad, 1e-5)
