"""Language modeling with images: training and validation of late fusion."""
