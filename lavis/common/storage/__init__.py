"""Files that appear whole or not at all, caches, arrays, journals, and the state of input files."""
