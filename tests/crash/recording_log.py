"""An intent log that journals what it changes."""

from pathlib import Path
from typing import Any

from mapfs.store.log import IntentLog
from tests.crash.journal import LOG, Journal, Kind


class _RecordingView:
    """A view of memory that journals what is stored in it."""

    def __init__(self, inner: memoryview, journal: Journal) -> None:
        self._inner = inner
        self._journal = journal
        self.itemsize = inner.itemsize

    def __getitem__(self, index: Any) -> Any:
        return self._inner[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self._inner[index] = value
        start = index.start if isinstance(index, slice) else index
        end = index.stop if isinstance(index, slice) else index + 1
        changed = self._inner[start:end].tobytes()
        self._journal.append(Kind.WRITE, LOG, start * self.itemsize, data=changed)

    def release(self) -> None:
        self._inner.release()


class RecordingLog(IntentLog):
    """Mapped memory reaches the disk at any time; only after a sync is it sure to be there."""

    def __init__(self, path: Path, uuid: bytes, journal: Journal) -> None:
        super().__init__(path, uuid)
        self._journal = journal
        self._view: Any = _RecordingView(self._view, journal)
        self._numbers: Any = _RecordingView(self._numbers, journal)

    def sync(self, position: int) -> None:
        super().sync(position)
        self._journal.append(Kind.SYNC, LOG)
