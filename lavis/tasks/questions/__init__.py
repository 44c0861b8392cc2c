"""Questions answered with images generated for them, and without."""
