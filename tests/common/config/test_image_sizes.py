"""Processor and model agree on the size of images, or the config is refused."""

from __future__ import annotations

import pytest

from lavis.common.config.loading import load_config
from lavis.common.errors import ConfigError

RUN = """
model: {{arch: blip2_critic, model_type: pretrain, image_size: 28{model}}}
datasets:
  laion_sample_extracted:
    vis_processor: {vis}
run: {{task: multimodal_classification, output_dir: output/x, test_splits: [test]}}
"""
ANY = ", vit_model: efficientnet_lite0, vit: {out_indices: [1, 2]}"


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.setenv("UNIFIED_IMAGE_DIR", str(tmp_path))
    for number in range(10):
        (tmp_path / "laion-samples" / f"{number:06d}").mkdir(parents=True)

    def run(vis: str, model: str = "", **options):
        (tmp_path / "run.yaml").write_text(RUN.format(vis=vis, model=model))
        return load_config(tmp_path / "run.yaml", **options)

    return run


@pytest.mark.parametrize(
    ("size", "shown"), [(", image_size: 32", 32), ("", 384)], ids=["another", "the default"]
)
def test_another_size_is_refused_before_anything_is_read(load, size, shown):
    vis = f"{{eval: {{name: blip_image_eval{size}}}}}"
    with pytest.raises(ConfigError) as caught:
        load(vis)
    assert str(caught.value) == (
        f"datasets.laion_sample_extracted.vis_processor.eval.image_size is {shown}, but "
        "model.image_size is 28; set both to one size, e.g. "
        'image_size: "${model.image_size}"'
    )


def test_equal_sizes_and_towers_of_any_size_pass(load):
    assert load("{eval: {name: blip_image_eval, image_size: 28}}").model.image_size == 28
    assert load("{eval: {name: blip_image_eval, image_size: 32}}", ANY)
    # of splits that are not read nothing is asked
    assert load(
        "{train: {name: blip_image_train, image_size: 32}, "
        "eval: {name: blip_image_eval, image_size: 28}}"
    )
