"""Code of a model folder is never run: refused in words, or passed over for the library's class."""

import ast
import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from lavis.common.errors import ConfigError
from lavis.common.pretrained import build_from_config, load_pipeline, load_pretrained

ROOT = Path(__file__).parents[2]
OWN = {"ClipEncoder", "ClipScorer", "LateFusion"}  # classes of this package with such a method
LOADERS = {"from_pretrained", "load_dataset", "load_from_disk", "from_config"}


@pytest.fixture(autouse=True)
def nobody_answers(monkeypatch):
    """A question on the terminal fails the test, even where the answer would be no."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on the terminal"))


@pytest.fixture
def folder(tmp_path):
    """A tiny GPT-2 whose folder also holds code, which leaves a mark when it is run."""
    place = tmp_path / "model"
    sizes = {"vocab_size": 7, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16}
    GPT2LMHeadModel(GPT2Config(**sizes)).save_pretrained(place)
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "<e>": 2}, unk_token="<e>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<e>").save_pretrained(place)
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    for name in ("modeling_own", "configuration_own", "tokenization_own", "processing_own"):
        (place / f"{name}.py").write_text(code)
    yield place
    assert not (tmp_path / "ran").exists(), "code of the folder was run"


def change(path, **fields):
    old = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({k: v for k, v in {**old, **fields}.items() if v is not None}))


AUTO_MAP = {
    "AutoConfig": "configuration_own.OwnConfig",
    "AutoModel": "modeling_own.OwnModel",
    "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
}


@pytest.mark.parametrize("cls", [AutoConfig, AutoModel, AutoModelForCausalLM])
def test_a_family_that_only_the_folder_knows_is_refused(folder, cls):
    change(folder / "config.json", model_type="own", architectures=None, auto_map=AUTO_MAP)
    with pytest.raises(
        ConfigError, match=r"^model.llm: cannot load: it needs code of its own"
    ) as e:
        load_pretrained(cls, str(folder), refusal="model.llm: cannot load")
    assert "\n" not in str(e.value) and "never run" in str(e.value)


def test_a_family_that_transformers_knows_too_loads_without_the_folders_code(folder):
    references = {name: ref.replace("Own", "GPT2") for name, ref in AUTO_MAP.items()}
    change(folder / "config.json", auto_map=references)
    model = load_pretrained(AutoModelForCausalLM, str(folder), refusal="model.llm")
    assert type(model) is GPT2LMHeadModel
    expected = GPT2LMHeadModel.from_pretrained(folder)
    torch.testing.assert_close(model.lm_head.weight, expected.lm_head.weight)


@pytest.mark.parametrize("architectures", [["OwnForCausalLM"], None])
def test_another_model_under_a_known_name_is_refused(folder, architectures):
    """Its weights would load into GPT-2, which computes something else."""
    change(folder / "config.json", auto_map=AUTO_MAP, architectures=architectures)
    with pytest.raises(ConfigError, match=r"auto_map: .*OwnForCausalLM"):
        load_pretrained(AutoModelForCausalLM, str(folder), refusal="model.llm")


def test_a_config_whose_class_is_only_in_the_folder_is_not_built(folder):
    config = CLIPConfig()  # no causal language model of transformers
    config.auto_map = {"AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    config._name_or_path = str(folder)
    with pytest.raises(ValueError, match="custom code"):
        build_from_config(AutoModelForCausalLM, config)


def test_a_tokenizer_of_the_folder_is_refused_and_a_known_one_loads(folder):
    path, references = folder / "tokenizer_config.json", [None, "tokenization_own.OwnTokenizer"]
    known = load_pretrained(AutoTokenizer, str(folder), refusal="run.tokenizer")
    assert known("a b").input_ids == [0, 1]
    change(path, auto_map={"AutoTokenizer": references}, tokenizer_class="OwnTokenizer")
    change(folder / "config.json", model_type="own")
    with pytest.raises(ConfigError, match=r"^run.tokenizer: it needs code of its own"):
        load_pretrained(AutoTokenizer, str(folder), refusal="run.tokenizer")


@pytest.mark.parametrize(
    ("cls", "file"),
    [(AutoProcessor, "processor_config.json"), (AutoImageProcessor, "preprocessor_config.json")],
)
def test_a_processor_of_the_folder_is_refused(folder, cls, file):
    change(folder / file, auto_map={cls.__name__: "processing_own.OwnProcessor"})
    change(folder / "config.json", model_type="own")
    with pytest.raises(ConfigError, match=r"^processor: it needs code of its own"):
        load_pretrained(cls, str(folder), refusal="processor")


def test_a_class_asked_for_by_name_refuses_a_folder_of_another_model(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "model_type": "clip",
                "architectures": ["OwnClip"],
                "auto_map": {"AutoModel": "modeling_own.OwnClip"},
            }
        )
    )
    with pytest.raises(ConfigError, match="OwnClip"):
        load_pretrained(CLIPModel, str(tmp_path), refusal="clip_model")


class Pipeline:
    """Stands in for diffusers: refuses as it does where a repository's code is not trusted."""

    @classmethod
    def from_pretrained(cls, name, *, trust_remote_code):
        assert trust_remote_code is False
        if name == "on/hub":
            raise ValueError("on/hub has code.\nPass `trust_remote_code=True` to allow it.")
        return name


def test_a_pipeline_with_code_of_its_own_is_refused(tmp_path):
    index = tmp_path / "model_index.json"
    change(index, _class_name=["pipeline_own", "OwnPipeline"])
    with pytest.raises(ConfigError, match=r"model: it needs .*pipeline_own\.OwnPipeline"):
        load_pipeline(Pipeline, str(tmp_path), refusal="model")
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "own_unet.py").write_text("")
    change(index, _class_name="SomePipeline", unet=["own_unet", "OwnUnet"], vae=["diffusers", "V"])
    with pytest.raises(ConfigError, match=r"unet/own_unet\.py"):
        load_pipeline(Pipeline, str(tmp_path), refusal="model")
    change(index, unet=["diffusers", "UNet2DConditionModel"])
    assert load_pipeline(Pipeline, str(tmp_path), refusal="model") == str(tmp_path)
    with pytest.raises(ConfigError, match=r"^model: it needs code of its own, which is never run"):
        load_pipeline(Pipeline, "on/hub", refusal="model")


def test_what_a_damaged_file_raises_becomes_one_sentence(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"^model.llm: SafetensorError: ") as refused:
        load_pretrained(AutoModelForCausalLM, str(folder), refusal="model.llm")
    assert "\n" not in str(refused.value)


def loads(text):
    """Return the lines on which a module loads something past the helper."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        owner = ast.unparse(called.value) if isinstance(called, ast.Attribute) else ""
        of_library = name != "from_config" or owner.startswith("Auto") or owner == "auto"
        if name in LOADERS and of_library and owner not in OWN | {"cls"}:
            found.append(f"{node.lineno}: {ast.unparse(called)}")
    return found


@pytest.mark.parametrize(
    "path",
    [p for part in ("lavis", "scripts", "projects") for p in sorted((ROOT / part).rglob("*.py"))],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_everything_is_loaded_by_the_helper(path):
    if path.name != "pretrained.py":
        assert not loads(path.read_text()), "use lavis.common.pretrained, which runs no own code"


def test_a_call_past_the_helper_is_seen():
    assert loads("AutoModel.from_pretrained(n)") and loads("load_dataset(n)")
    assert loads("AutoModel.from_config(c)") and loads("diffusers.X.from_pretrained(n)")
    assert not loads("ClipEncoder.from_pretrained(n); Thing.from_config(c)")
