"""When to commit: on fsync, on a timer, when much has changed, and when space runs out."""

import logging
from time import perf_counter_ns

import trio

from mapfs.errors import MapfsError
from mapfs.filesystem.filesystem import Filesystem
from mapfs.fuse.counters import Timings, new_times, note_time
from mapfs.store.store import Condition
from mapfs.store.transaction import LogSync

_log = logging.getLogger(__name__)


class Committer:
    """Runs the commits of a filesystem, one at a time, in a worker thread."""

    def __init__(self, filesystem: Filesystem) -> None:
        self._filesystem = filesystem
        # Held by whoever makes something durable: the catalog and the log have one writer.
        self._turn = trio.Semaphore(1)
        # A thread of its own: those that all share may be waiting for answers that a commit is
        # to go before (`Notifications.write_back`).
        self._thread = trio.CapacityLimiter(1)
        self._begun = 0
        self._durable = self._committed = 0
        self._pressure = trio.Event()
        self._condition = filesystem.store.condition
        self._lost = len(filesystem.store.backing.lost)
        self._times = new_times()
        self._failures = 0
        self._log_syncs = 0

    async def sync(self, inode: int | None = None) -> None:
        """Return when everything that was changed before the call is durable.

        Any number of callers share the work: whoever waited while a sync or a commit that began
        after the call was written need not start another. Raises `MapfsError` or `OSError` if it
        failed, and `OSError` (EIO) if there are bytes of the file `inode` that the disk refused.
        """
        begun = self._begun
        async with self._turn:
            if (
                self._durable <= begun
                and not self._filesystem.is_synced
                and not await self._sync_by_log()
            ):
                await self._commit()
        if inode is not None:
            self._filesystem.require_written(inode)

    async def commit(self) -> None:
        """Commit what was changed before the call, also if it is durable by the log already."""
        begun = self._begun
        async with self._turn:
            if self._committed <= begun and self._filesystem.needs_commit:
                await self._commit()

    def begin_log_sync(self, *, data_only: bool = False) -> LogSync | None:
        """The quick way to make everything durable, or None if it takes a `sync`.

        Nothing else is made durable until `end_log_sync`. An fsync may be answered once `write` has
        returned True, in any thread: there are no bytes then that the disk refused. `data_only`,
        for fdatasync(2), may leave times for later.
        """
        if self._filesystem.store.backing.lost:
            return None
        try:
            self._turn.acquire_nowait()
        except trio.WouldBlock:
            return None
        try:
            sync = self._filesystem.begin_log_sync(data_only=data_only)
        except BaseException:  # an inode that cannot be packed
            self._turn.release()
            raise
        if sync is None:
            self._turn.release()
        else:
            self._begun += 1
        return sync

    def end_log_sync(self, sync: LogSync, *, succeeded: bool) -> None:
        """Take note of what `write` returned, or that it raised: a `sync` must follow then."""
        self._synced(sync, succeeded=succeeded)
        self._turn.release()

    def _synced(self, sync: LogSync, *, succeeded: bool) -> None:
        if succeeded and sync.is_whole:
            self._durable = self._begun
            self._log_syncs += 1
        self._filesystem.end_log_sync(succeeded=succeeded)

    async def _sync_by_log(self) -> bool:
        """Let the log make everything durable; False if that takes a commit."""
        sync = self._filesystem.begin_log_sync()
        if sync is None:
            return False
        self._begun += 1
        succeeded = False
        try:
            succeeded = await trio.to_thread.run_sync(sync.write, limiter=self._thread)
        finally:
            self._synced(sync, succeeded=succeeded)
        return succeeded

    async def _commit(self) -> None:
        self._begun += 1
        begun = perf_counter_ns()
        commit = self._filesystem.begin_commit()
        succeeded = False
        try:
            await trio.to_thread.run_sync(commit.write, limiter=self._thread)
            succeeded = True
            self._durable = self._committed = self._begun
        finally:
            self._filesystem.end_commit(succeeded=succeeded)
            note_time(self._times, perf_counter_ns() - begun)
            self._failures += not succeeded
            self._report()

    @property
    def commits(self) -> Timings:
        """The commits so far, those that failed included."""
        return Timings.of(self._times, self._failures)

    @property
    def log_syncs(self) -> int:
        """How often the log alone made everything durable."""
        return self._log_syncs

    def _report(self) -> None:
        """Log it when the host's errors change what the filesystem can promise."""
        condition, self._condition = self._condition, self._filesystem.store.condition
        if self._condition is Condition.READ_ONLY and condition is not Condition.READ_ONLY:
            _log.error("the catalog cannot be written: the filesystem is read-only from now on")
        lost, self._lost = self._lost, len(self._filesystem.store.backing.lost)
        if self._lost > lost:
            _log.error(
                "%d pages of the store cannot be written: fsync of their files fails, and"
                " `mapfs fsck` will name them",
                self._lost,
            )

    async def reclaim(self) -> bool:
        """Commit so that freed pages can be used; False if nothing was freed."""
        if not self._filesystem.reclaimable:
            return False
        await self.commit()
        return True

    def must_wait(self) -> bool:
        """To be called before an operation is answered: begins a commit if there is much to write.

        True if the log could not take the operation: it must be answered after a `sync` only, as
        nothing that was answered may be lost when the daemon is killed.
        """
        if self._filesystem.must_commit:
            return True
        if self._filesystem.wants_commit:
            self._pressure.set()
        return False

    async def run(self, interval: float) -> None:
        """Commit every `interval` seconds while there is something to write, until cancelled.

        Returns once the catalog can no longer be written.
        """
        while not self._filesystem.is_failed:
            with trio.move_on_after(interval):
                await self._pressure.wait()
            self._pressure = trio.Event()
            try:
                await self.commit()
            except (MapfsError, OSError) as error:
                if not self._filesystem.is_failed:
                    _log.error("commit failed, trying again in %g s: %s", interval, error)
                    await trio.sleep(interval)
            except Exception:  # noqa: BLE001 (the mount must go on)
                # The log still holds what was answered.
                _log.exception("commit failed, trying again in %g s", interval)
                await trio.sleep(interval)
