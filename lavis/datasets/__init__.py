"""Records, pictures and batches; import the submodule that is needed."""
