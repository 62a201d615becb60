"""Where a daemon logs."""

import logging
import logging.handlers
import os
from pathlib import Path
from typing import Final

_LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(message)s"
_JOURNAL_FORMAT: Final = "mapfs[%(process)d]: %(levelname)s %(message)s"


def log_to(handler: logging.Handler | None) -> None:
    """Log with a handler of `log_handler`, or to standard error."""
    if handler is None:
        logging.basicConfig(level=logging.INFO, format=_LOG_FORMAT)
    else:
        logging.basicConfig(level=logging.INFO, handlers=[handler])


def log_handler(path: Path | None) -> logging.Handler:
    """For the file asked for, the journal, or a file in the user's state."""
    handler: logging.Handler
    if path is None and Path("/dev/log").exists():
        handler = logging.handlers.SysLogHandler("/dev/log")
        handler.setFormatter(logging.Formatter(_JOURNAL_FORMAT))
        return handler
    if path is None:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        path = Path(state) / "mapfs" / "mapfs.log"
        path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path.absolute())
    handler.setFormatter(logging.Formatter(_LOG_FORMAT))
    return handler
