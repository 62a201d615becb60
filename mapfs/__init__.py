"""mapfs: a Linux filesystem in one memory-mapped store file, with its page slack counted.

For other programs there is `open_mapping`, which maps a file of a store without FUSE in between.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mapfs.mapping import FileMapping, open_mapping

__all__ = ["FileMapping", "__version__", "open_mapping"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import what needs a store only when it is asked for: the command must start quickly."""
    if name in ("FileMapping", "open_mapping"):
        return getattr(importlib.import_module("mapfs.mapping"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
