"""Vision-language models of transformers: families, loading, and how a chat is written."""

from lavis.common.multimodal.chat import answer_frame, write_chat
from lavis.common.multimodal.families import VlmFamily, family_of
from lavis.common.multimodal.loading import load_vlm

__all__ = ["VlmFamily", "answer_frame", "family_of", "load_vlm", "write_chat"]
