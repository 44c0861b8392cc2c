"""Options of adapters, and peft's settings of them."""

import sys

import pytest
from pydantic import ValidationError

from lavis.common.errors import ConfigError
from lavis.models.lora import LoraOptions, lora_settings


def test_settings_are_the_options():
    options = LoraOptions(rank=4, alpha=12, dropout=0.25)
    settings = lora_settings(options, targets=["q_proj"], task_type="CAUSAL_LM")
    assert (settings.r, settings.lora_alpha, settings.lora_dropout) == (4, 12, 0.25)
    assert settings.target_modules == {"q_proj"} and settings.task_type == "CAUSAL_LM"
    assert lora_settings(options, targets=None).target_modules is None


def test_without_peft_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"pip install 'lavis-commonsense\[peft\]'"):
        lora_settings(LoraOptions(), targets=None)


@pytest.mark.parametrize("options", [{"rank": 0}, {"dropout": 1.0}, {"ranks": 4}])
def test_impossible_options_are_refused(options):
    with pytest.raises((ValidationError, ConfigError)):
        LoraOptions(**options)
