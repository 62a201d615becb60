"""Making a filesystem's changes durable: logging each operation, committing, fsync by the log."""

import functools
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

from mapfs.errors import MapfsError, ReadOnlyError
from mapfs.filesystem.inode import InodeTable
from mapfs.filesystem.metadata import AccessTimes, Metadata
from mapfs.filesystem.placement import Placement
from mapfs.store.store import Condition, Store
from mapfs.store.transaction import Commit, LogSync

# Bounds the memory that a generation of changes takes, and the time that its commit does.
_MOST_CHANGES: Final = 10_000
# When the host is full: each may touch a page of the catalog, and the reserve is at least 1 MiB.
_MOST_CHANGES_IF_TIGHT: Final = 200

_Method = TypeVar("_Method", bound=Callable[..., Any])


def logged(method: _Method) -> _Method:
    """Log what a method changed, also if it raises: part of its work may be done.

    It raises `ReadOnlyError` once nothing can be committed any more.
    """

    @functools.wraps(method)
    def call(self: "Durability", *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 (any method)
        if self.is_failed:
            raise ReadOnlyError("the catalog can no longer be written")
        try:
            answer = method(self, *arguments, **options)
        except BaseException:
            if self.logs_calls:
                self.log_operation()
            raise
        if self.logs_calls:
            self.log_operation(self.request)
        return answer

    return cast(_Method, call)


class Durability:
    """The part of `Filesystem` that is about durability, and not about files.

    `is_failed` is whether the catalog can no longer be written. `request` is the kernel's id of the
    request that is executed now, for the log, or 0. `is_time_change` says of an operation that it
    changes nothing but times. `logs_calls` False lets several calls be one operation, of which a
    crash leaves all or nothing: until the caller's `log_operation`, or a commit.
    """

    store: Store
    is_failed = False
    logs_calls = True
    request = 0
    is_time_change = False
    _inodes: InodeTable
    _placement: Placement
    _metadata: Metadata

    def log_operation(self, request: int = 0) -> None:
        """Log what an operation has changed; the facade's own methods do so by themselves.

        `request` is the kernel's id of it if it succeeded.
        """
        self._inodes.note_changes()
        self.store.log_operation(request, only_times=self.is_time_change)
        self.is_time_change = False

    @property
    def unanswered(self) -> set[int]:
        """Ids of requests that were executed and not answered yet: the transport keeps the set.

        The log names them for as long as they are in it, and `store.replayed.requests` after the
        next opening; to begin with it holds what was found there. A frame of the log names its
        request too, so one that is answered at once need not be put in.
        """
        return self.store.unanswered

    def forget_requests(self) -> None:
        """Begin a new connection to the kernel, on which the ids so far mean nothing."""
        self.store.forget_requests()

    @property
    def must_commit(self) -> bool:
        """Whether operations must be committed before they are answered: the log is full."""
        return self.store.log is not None and self.store.log.is_closed

    @property
    def wants_commit(self) -> bool:
        """Whether so much has changed that a commit should not wait for its time."""
        changes = self.store.transaction.changes + self._inodes.changed
        half_full = self.store.log is not None and self.store.log.is_half_full
        most = _MOST_CHANGES_IF_TIGHT if self.store.catalog.is_tight else _MOST_CHANGES
        return changes > most or half_full

    @property
    def is_dirty(self) -> bool:
        """Whether there is anything that is not yet durable, a commit under way not counted."""
        return self._inodes.changed > 0 or self.store.transaction.is_dirty

    @property
    def needs_commit(self) -> bool:
        """Whether a commit has anything to do: changes, or pages that are no longer leased."""
        return self.is_dirty or self.store.allocator.has_ended_leases

    def require_written(self, number: int) -> None:
        """For fsync, after a commit: raise `OSError` (EIO) if bytes of the file are lost."""
        self._placement.require_written(number)

    @property
    def reclaimable(self) -> bool:
        """Whether a commit would make room: worth a try before giving up with ENOSPC."""
        is_tight = self.store.catalog.is_tight and self.is_dirty
        allocator = self.store.allocator
        return allocator.pending_pages > 0 or allocator.has_ended_leases or is_tight

    def flush(self) -> None:
        """Bring the tables, totals included, up to date in memory: for fsck and tests."""
        self._inodes.flush()

    @property
    def is_synced(self) -> bool:
        """Whether an fsync has nothing to do: all that changed is durable, if not yet committed."""
        self.log_operation()
        return not self.is_dirty or self.store.is_synced

    def begin_log_sync(self, *, data_only: bool = False) -> LogSync | None:
        """The quick way to make everything durable, or None if it takes a commit.

        Call its `write` in any thread, then `end_log_sync`; no commit may begin before that.
        `data_only`, for fdatasync(2), may leave times for later.
        """
        if self.is_failed:
            return None
        self.log_operation()
        return self.store.begin_log_sync(data_only=data_only)

    def end_log_sync(self, *, succeeded: bool) -> None:
        """Take note of how `write` ended: unless it returned True, a commit must follow."""
        self.store.end_log_sync(succeeded=succeeded)

    def begin_commit(self, *, closing: bool = False) -> Commit:
        """Freeze what has changed; call its `write` in any thread, then `end_commit`.

        Raises `MapfsError` once the catalog can no longer be written; closing tries once more.
        """
        if self.is_failed and not closing:
            raise MapfsError("the catalog can no longer be written")
        # Logged in the generation that it belongs to: a crash may come before this commit's end.
        self._inodes.fold()
        self.store.settle(closing=closing)
        self.log_operation()
        self._inodes.flush()
        return self.store.freeze()

    def end_commit(self, *, succeeded: bool) -> None:
        """Take note of how `write` ended: False if it raised, and the next commit tries again."""
        if succeeded:
            self.store.finish()
            if self.must_commit:
                self.store.reopen_log()
                self._inodes.touch_all()
                self.log_operation()
        else:
            self.store.abort()
            self._stop_if_failed()

    def _stop_if_failed(self) -> None:
        if self.store.condition is Condition.READ_ONLY:
            self.is_failed = True
            self._metadata.access_times = AccessTimes.NONE

    def commit(self, *, closing: bool = False) -> None:
        """Make everything durable, waiting for it."""
        commit = self.begin_commit(closing=closing)
        succeeded = False
        try:
            commit.write()
            succeeded = True
        finally:
            self.end_commit(succeeded=succeeded)
