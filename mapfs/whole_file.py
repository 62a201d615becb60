"""Writing a file in one step: who opens it meets the old one or the whole new one."""

import os
from pathlib import Path

from mapfs.errors import UsageError


def write_whole(path: Path, text: str) -> None:
    """Write `text` to `path`, in UTF-8. Raises `OSError`, and what `checked_target` does."""
    target = checked_target(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        file = partial.open("x", encoding="utf-8")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        with file:
            file.write(text)
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def checked_target(path: Path) -> Path:
    """The file that `path` is or would be, which symbolic links may lead to.

    Raises `UsageError` if something else is there, or no directory for it.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise UsageError(f"{path}: not a file, so nothing can take its place")
    if not target.parent.is_dir():
        raise UsageError(f"{path}: no such directory: {target.parent}")
    if not os.access(target.parent, os.W_OK):
        raise UsageError(f"{path}: you may not write in {target.parent}")
    return target
