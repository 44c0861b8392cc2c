"""Batches keep their size and their own random numbers; what they are computed in."""

from types import SimpleNamespace

import pytest
import torch

from lavis.common.errors import ConfigError, DataError
from lavis.datasets.base import TrainingView
from lavis.runners.loader import (
    TrainBatches,
    autocast,
    evaluation_dtype,
    make_loader,
    to_device,
    training_dtype,
)
from lavis.runners.sampler import BatchRequest, Cursor

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def request(*rows, epoch=0):
    return BatchRequest(epoch, 0, rows, Cursor(epoch, (len(rows),)))


def batches(tiny, prepare=None, **options):
    return TrainBatches([TrainingView(tiny.TinyData(length=6, **options), seed=3)], prepare)


def test_an_unusable_row_is_replaced_by_the_next(tiny):
    batch = batches(tiny, bad=[1, 2])[request(0, 1, 5)]
    assert [row.index for row in batch.samples["rows"]] == [0, 3, 5]
    assert [(reject.index, reject.reason) for reject in batch.rejects] == [
        (1, "broken on purpose"),
        (2, "broken on purpose"),
    ]
    with pytest.raises(DataError, match="row 4 and those after it cannot be used, first because"):
        batches(tiny, bad=range(6))[request(4)]


def test_a_batch_draws_the_same_numbers_whenever_it_is_loaded(tiny):
    def prepare(samples, generator):
        return {**samples, "noise": torch.rand(2, generator=generator)}

    data = batches(tiny, prepare)
    first, second = (data[request(0, 1)].samples["noise"] for _ in range(2))
    assert torch.equal(first, second)
    for other in (request(1, 0), request(0, 1, epoch=1)):
        assert not torch.equal(first, data[other].samples["noise"])


def test_items_come_in_order_and_leave_the_global_generator_alone(tiny):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    requests = [request(n) for n in (4, 0, 2)]
    loader = make_loader(batches(tiny), requests, num_workers=0, device=CPU)
    assert [batch.request for batch in loader] == requests
    assert torch.equal(torch.rand(1), expected)


def test_image_numbers_are_read_on_the_host():
    samples = {"image_index": torch.tensor([0, 0, 1]), "label": torch.ones(3), "text": ["a"]}
    moved = to_device(samples, CPU)
    assert moved["image_index"] == [0, 0, 1] and moved["text"] == ["a"]
    assert torch.equal(moved["label"], torch.ones(3))


def test_what_is_computed_in():
    run = SimpleNamespace(amp=True, amp_dtype="bf16", amp_eval=None)
    assert training_dtype(run, CPU) == training_dtype(run, GPU) == torch.bfloat16
    assert evaluation_dtype(run, CPU) is None and evaluation_dtype(run, GPU) == torch.bfloat16
    run = SimpleNamespace(amp=False, amp_dtype="fp16", amp_eval=True)
    assert training_dtype(run, CPU) is None and evaluation_dtype(run, CPU) == torch.float16
    with pytest.raises(ConfigError, match="fp16 trains on CUDA only; use bf16"):
        training_dtype(SimpleNamespace(amp=True, amp_dtype="fp16"), CPU)
    weight = torch.ones(2, 2)
    with autocast(CPU, torch.bfloat16):
        assert (weight @ weight).dtype == torch.bfloat16
    with autocast(CPU, None):
        assert (weight @ weight).dtype == torch.float32
