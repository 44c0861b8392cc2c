"""Files that appear whole or not at all, caches, arrays, and what a file was when it was read."""
