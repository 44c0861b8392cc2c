"""Vision-language models of transformers as critics."""
