"""The table of families: every row is meant, and says why where it cannot do something."""

import transformers

from lavis.common.multimodal.families import UNKNOWN, families, family_of


def test_every_row_is_a_family_of_images_and_texts_or_not_in_this_transformers():
    known = (
        set(transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
        if hasattr(transformers, "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES")
        else {config.model_type for config in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING}
    )
    assert len(known & set(families())) >= 20
    for name in families():
        assert name in known or name not in transformers.CONFIG_MAPPING, name


def test_a_family_that_never_branches_says_why():
    for name, row in families().items():
        if row.branches == "never" and not row.refused:
            assert row.why and row.why != UNKNOWN, name
        assert "{text}" in row.prompt


def test_a_family_that_is_not_in_the_table_is_read_whole_and_alone():
    row = family_of("brand_new_vlm")
    assert (row.branches, row.is_known, row.why) == ("never", False, UNKNOWN)
    assert family_of("qwen3_vl").is_known
