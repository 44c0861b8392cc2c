"""Images with captions, and text, as late fusion is trained on them."""
