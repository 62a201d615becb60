"""Mapping files of a store without FUSE in between: `open_mapping`, for other programs."""

from mapfs.mapping.file_mapping import FileMapping
from mapfs.mapping.opening import open_mapping

__all__ = ["FileMapping", "open_mapping"]
