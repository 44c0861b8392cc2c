"""Configuration: files and options to one checked tree, before anything is built."""
