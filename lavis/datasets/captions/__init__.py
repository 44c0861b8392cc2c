"""Images with captions, and text, that late fusion is trained on."""
