"""Records, pictures and batches; import the submodule that is needed."""

from lavis.datasets.frame import read_frame

__all__ = ["read_frame"]
