"""Gradient accumulation on two real processes: how often ranks meet, and what weights come out."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from launching import launcher_environments

sys.path.insert(0, str(Path(__file__).parent))


class SomeBatches:
    """Gives scores (`qa_label`) of the first batch only, on rank 0: its head is unused after it."""

    def __init__(self, data, rank):
        self._data, self._rank, self.name, self.split = data, rank, data.name, data.split
        self.has_images, self.vis_processor = True, data.vis_processor
        self.batches = 0

    def __len__(self):
        return len(self._data)

    def __getattr__(self, name):
        return getattr(self.__dict__["_data"], name)

    def collate(self, rows, images, image_index):
        samples = self._data.collate(rows, images, image_index)
        self.batches += 1
        if self._rank or self.batches % 3 != 1:
            samples.pop("qa_label", None)
        return samples


def train(argv, env, log):
    """Be one rank: train the tiny model, count averaged buckets, sync as `argv` says."""
    os.environ.update(env)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT, 0o644), 2)
    import tiny_run
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

    from lavis.common import dist
    from lavis.runners import trainer as training

    folder, accumulate, every_batch = Path(argv[0]), int(argv[1]), argv[2] == "each"
    torch.set_num_threads(1)
    world = dist.start("cpu", 1.0)
    averaged = []

    def hook(group, bucket):
        averaged.append(1)
        return allreduce_hook(group, bucket)

    wrap = training._wrap

    def counted(accelerator, model):
        wrapped = wrap(accelerator, model)
        wrapped.register_comm_hook(None, hook)
        return wrapped

    training._wrap = counted
    if every_batch:  # what the documented way must equal
        from contextlib import nullcontext

        training.Trainer._synchronized = lambda self, last: nullcontext()
    data = {"tiny": {"train": SomeBatches(tiny_run.TinyData(24, qa=True), world.rank)}}
    model = tiny_run.TinyModel(dropout=0.0)
    tiny_run.make_runner(
        folder, model=model, datasets=data, world=world, accum_grad_iters=accumulate,
        batch_size_train=2, max_epoch=1, max_grad_norm=1.0,
    ).train()  # fmt: skip
    (folder / f"averaged-{world.rank}.json").write_text(json.dumps(len(averaged)))
    world.close()


@pytest.fixture
def run(forks, tiny, tmp_path):
    def start(name, accumulate, how):
        folder = tmp_path / name
        folder.mkdir()
        ranks = []
        for rank, place in enumerate(launcher_environments(2)):
            log = tmp_path / f"{name}-{rank}.log"
            argv = [str(folder), str(accumulate), how]
            ranks.append(forks.Process(target=train, args=(argv, place, str(log))))
            ranks[-1].start()
        for rank in ranks:
            rank.join(120)
        logs = "\n".join((tmp_path / f"{name}-{rank}.log").read_text()[-3000:] for rank in (0, 1))
        assert [rank.exitcode for rank in ranks] == [0, 0], logs
        counts = [json.loads((folder / f"averaged-{rank}.json").read_text()) for rank in (0, 1)]
        assert counts[0] == counts[1]
        return counts[0], load_file(folder / "checkpoint_last" / "model.safetensors")

    return start


def test_ranks_average_once_for_a_group_and_get_the_same_weights(run):
    """6 batches a rank in groups of 4: one whole and one of 2; the model is one bucket of DDP.

    The head of scores is used in the first and fourth batch of rank 0 only: not in the last of
    either group, and never on rank 1.
    """
    each, expected = run("each", 4, "each")
    last, found = run("last", 4, "last")
    assert (each, last) == (6, 2)
    assert expected.keys() == found.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-5, msg=name)
    fresh = type(sys.modules["tiny_run"].TinyModel())(dropout=0.0).state_dict()
    assert not torch.allclose(found["qa_head.weight"], fresh["qa_head.weight"], atol=1e-4)
