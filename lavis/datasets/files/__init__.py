"""Records and images in the file formats that users bring, read row by row."""
