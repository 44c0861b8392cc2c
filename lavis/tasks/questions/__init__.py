"""Questions answered with images made for them, and without."""
