"""Models: tensors in, tensors or strings out. Importing this loads no torch."""

from lavis.models.zoo import load_model, load_model_and_preprocess, load_preprocess, model_zoo

__all__ = ["load_model", "load_model_and_preprocess", "load_preprocess", "model_zoo"]
