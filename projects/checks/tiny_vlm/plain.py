"""What plain transformers code says of a prompt: template, processor, one forward.

Shapes: n tokens behind the prompt and the first one, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from lavis.common.pretrained import load_pretrained
from lavis.models.vlm.inputs import as_image

# Prompts of processors that have no chat template.
FORMS = {
    "llava": "USER: <image>\n{} ASSISTANT:",
    "paligemma": "<image>{}",
    "kosmos-2": "Question: {} Answer:",
    "blip-2": "Question: {} Answer:",
    "florence2": "{}",
}
_STARTS = [2, 1]  # of the tiny decoder behind an encoder, and the token it forces
_OF_TOKENS = ("attention_mask", "token_type_ids", "mm_token_type_ids", "image_embeds_position_mask")


def plain_inputs(folder: str, views: Sequence[Tensor], text: str) -> Any:
    """Return what a model's processor makes of views and a text."""
    processor: Any = load_pretrained(AutoProcessor, folder, refusal=folder)
    images = [as_image(view) for view in views]
    form = FORMS.get(load_pretrained(AutoConfig, folder, refusal=folder).model_type)
    if form is not None:
        inputs = processor(images=images[0], text=form.format(text), return_tensors="pt")
        inputs.pop("labels", None)
        return inputs
    shown = [{"type": "image", "image": image} for image in images]
    message = {"role": "user", "content": [*shown, {"type": "text", "text": text}]}
    return processor.apply_chat_template(
        [message], add_generation_prompt=True, tokenize=True, return_dict=True,
        return_tensors="pt", enable_thinking=False,
    )  # fmt: skip


@torch.no_grad()
def plain_scores(
    folder: str, views: Sequence[Tensor], text: str, behind: Sequence[int] = ()
) -> Tensor:
    """Return log-probabilities `(n, V)` of what follows a prompt, and each token `behind` it."""
    model: Any = load_pretrained(AutoModelForImageTextToText, folder, refusal=folder).eval()
    inputs = plain_inputs(folder, views, text)
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.tensor([[*_STARTS, *behind]])
    elif behind:
        marked = {"attention_mask": 1}
        if model.config.model_type == "paligemma":
            marked["token_type_ids"] = 1
        more = {"input_ids": list(behind)}
        more |= {name: [marked.get(name, 0)] * len(behind) for name in _OF_TOKENS}
        for name in more.keys() & inputs.keys():
            rest = torch.tensor([more[name]])
            inputs[name] = torch.cat([torch.as_tensor(inputs[name]), rest], 1)
    scores: Tensor = model(**inputs).logits[0, -1 - len(behind) :].log_softmax(-1)
    return scores
