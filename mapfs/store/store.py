"""A store as a whole: its parts tied together, commits, and closing.

Belongs to one thread, except `Commit.write`. A store must be opened after the last `fork()`.
"""

import enum
from collections.abc import Callable
from typing import Final

from mapfs.errors import DamagedStoreError
from mapfs.format.frames import Kind, pack_executed
from mapfs.format.records import (
    FIRST_ID,
    MAX_U64,
    META_LOST,
    META_STATE,
    META_UUID,
    ROOT_INODE,
    Inode,
    State,
    Table,
    id_key,
    unpack_lost,
)
from mapfs.format.superblock import Superblock
from mapfs.store.allocator import Allocator
from mapfs.store.backing import Backing
from mapfs.store.catalog import Catalog
from mapfs.store.log import IntentLog
from mapfs.store.machine_pages import MachinePages
from mapfs.store.replay import Replay
from mapfs.store.transaction import Commit, LogSync, Transaction

# More than a filesystem can use up.
_MOST_IDS: Final = 1 << 62


class Condition(enum.Enum):
    """How a store is, as `user.mapfs.fs.state` says it.

    DEGRADED: bytes of files are lost, or the last sync or commit failed and is tried again.
    READ_ONLY: the catalog could not be written, and nothing can be changed until it is opened anew.
    """

    OK = "ok"
    DEGRADED = "degraded"
    READ_ONLY = "read-only"


class Store:
    """An open store. Make one with `open_store` or `ephemeral_store`."""

    def __init__(
        self,
        superblock: Superblock,
        backing: Backing,
        catalog: Catalog,
        *,
        log: IntentLog | None = None,
        pages: int | None = None,
        read_only: bool = False,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        """Tie the parts together; takes over `backing`, `catalog` and `log`, which it replays.

        `pages` are those that the backing holds, if it is not new. Raises `DamagedStoreError` if
        the catalog has no state, belongs to another store, or tells of more pages.
        """
        self.superblock = superblock
        self.page_size = superblock.page_size
        self.read_only = read_only
        self.backing = backing
        self.catalog = catalog
        self._on_close = on_close
        self.log = log
        self.state = read_state(superblock, catalog)
        self._durable = self.state.commits
        self._is_retrying = self._is_unsynced = False
        # Whether the half in use begins with what the catalog has already: all of that may be
        # replayed, but not a part of it, which is what a power cut can leave.
        self._is_overlapping = False
        # Up to where the log, of the half in use, has more than times.
        self._needed = 0
        self.transaction = Transaction(catalog, backing, superblock.page_size)
        # Whether the disk lost something that the replayed changes refer to.
        self.lost_data = log is not None and log.is_failed
        self.replayed = self._replay()
        # Requests of the kernel that are executed and not answered: the log names them as long.
        self.unanswered = set(self.replayed.requests)
        # The generation that each of them changed, as the log has it; 0 counts in any case.
        self._named = dict.fromkeys(self.unanswered, 0)
        self._logged_state = b""
        check_state(superblock, self.state, pages)
        backing.lost = self._noted_lost = MachinePages(read_lost(superblock, catalog, self.state))
        _check_root(self.transaction)
        self.allocator = Allocator(self.transaction, backing, superblock, self.state)
        self.allocator.adopt_runs(self.replayed.runs.values())
        if log is not None and not read_only:
            self._keep_log(log)

    def _keep_log(self, log: IntentLog) -> None:
        log.keep_requests(self._named)
        self._begin_log(log)
        self.transaction.keep_log()
        # At once, and not when the commit ends: the daemon may be killed before.
        self.backing.on_error(log.mark_failed)
        # A closed log is of a daemon that was killed, which may have written over bytes besides.
        if self.replayed.is_needed or log.is_closed:
            self.backing.inherit()

    @property
    def condition(self) -> Condition:
        """Whether the host's errors have left a mark."""
        if self.catalog.is_failed:
            return Condition.READ_ONLY
        is_degraded = self._is_retrying or self._is_unsynced or self.backing.lost
        return Condition.DEGRADED if is_degraded else Condition.OK

    def _replay(self) -> Replay:
        replay = Replay(self.transaction)
        if self.log is not None:
            for generation, changes in self.log.replay(self._durable):
                replay.apply(changes)
                self.state = replay.state or self.state
                self.state.commits = generation
            replay.requests |= self.log.requests(self._durable)
        return replay

    def reopen_log(self) -> None:
        """After a gap in the log and a commit behind it: log the running generation from here.

        What it has changed so far must be logged by the caller as one operation.
        """
        if self.log is not None:
            self._begin_log(self.log)
            self.transaction.note_all()
            self.allocator.move_all()
            # In the frame that has what they changed: they count as it does.
            unnamed = self.unanswered - self._named.keys()
            if unnamed:
                executed = pack_executed((number, 0) for number in unnamed)
                self.transaction.note(Kind.EXECUTED, b"", executed)

    def _name_requests(self, log: IntentLog, generation: int) -> None:
        """Before a commit of `generation`: the frames that name requests may be overwritten."""
        self._named = {each: self._named.get(each, generation) for each in self.unanswered}
        log.keep_requests(self._named)

    def _begin_log(self, log: IntentLog) -> None:
        log.begin(self.state.commits + 1, self._durable)
        self._needed = 0
        self._is_overlapping = False
        self._logged_state = b""

    def log_operation(self, request: int = 0, *, only_times: bool = False) -> None:
        """Log what changed since the last time: call it when an operation is complete.

        `request` is the kernel's id of what was executed, named even if it changed nothing.
        `only_times` is for a change that fdatasync(2) may leave for later.
        """
        if self.log is None:
            return
        self.allocator.note_runs()
        state = self.state.pack()
        if state != self._logged_state:
            self.transaction.note(Kind.STATE, b"", state)
            self._logged_state = state
        changes = self.transaction.take_unlogged()
        if changes or request:
            self.log.append(changes, request)
            if not only_times:
                self._needed = self.log.position

    def forget_requests(self) -> None:
        """Name no request any more. Nothing that was replayed may wait for its commit."""
        self.unanswered.clear()
        self._named.clear()
        self.replayed.requests.clear()
        if self.log is not None and not self.read_only:
            self.log.forget_requests()

    def require_room(self, value_bytes: int = 0) -> None:
        """Before anything that makes the catalog larger: raise if the host may be too full for it.

        `value_bytes` is how much is to be put beside names and numbers.
        Raises `OSError` (ENOSPC, EDQUOT). What makes space does not ask: a reserve is kept for it.
        """
        self.transaction.expect_value(value_bytes)
        self.catalog.require_room(self.transaction.changes, self.transaction.large_bytes)

    def next_id(self) -> int:
        """A number that was never used before, for an inode or a directory cookie."""
        number = self.state.next_id
        self.state.next_id += 1
        return number

    def settle(self, *, closing: bool = False) -> None:
        """Before `freeze`, and before the log is told: put the allocator's tables in order.

        `closing` gives pages that were taken ahead of need back to the host.
        """
        self.allocator.settle(closing=closing)

    @property
    def is_synced(self) -> bool:
        """Whether everything that changed, and was logged, is durable by the log already."""
        log = self.log
        return (
            log is not None
            and log.can_sync
            and log.position == log.synced
            and not self.transaction.has_unsynced_data
        )

    def begin_log_sync(self, *, data_only: bool = False) -> LogSync | None:
        """What makes durable everything that was logged, or None if that takes a commit.

        `data_only` leaves the log alone if what it has more is times.
        No commit may be under way when its `write` runs, nor begin before `end_log_sync`.
        """
        if self.log is None or not self.log.can_sync or self._durable != self.state.commits:
            return None
        # The log goes on in the other half, behind what the commit that failed did not write.
        if self._is_retrying or self._is_overlapping:
            return None
        # Bytes that were lost and are written again must not be lost after a crash.
        if self.backing.lost is not self._noted_lost:
            return None
        has_data = self.transaction.has_unsynced_data
        self.transaction.has_unsynced_data = False
        is_whole = not data_only or self.log.synced < self._needed
        return LogSync(self.backing, self.log, has_data=has_data, is_whole=is_whole)

    def end_log_sync(self, *, succeeded: bool) -> None:
        """Take note of how `LogSync.write` ended."""
        self._is_unsynced = not succeeded
        if not succeeded:
            self.transaction.has_unsynced_data = True

    def freeze(self) -> Commit:
        """The running changes as a commit whose `write` may run in a worker thread.

        Call `settle` before it, and `finish` or `abort` before the next one.
        """
        # The log may have a gap in the half behind that of a commit that failed. What is frozen now
        # has all of it, so it goes by that half's number: nothing of it may be replayed over this.
        has_gap = self._is_retrying and self.log is not None and self.log.is_closed
        self.state.commits += 2 if has_gap else 1
        self.transaction.put(Table.META, META_STATE, self.state.pack())
        commit = self.transaction.freeze()
        # A closed log misses something of the generation that is frozen now: what comes after must
        # not be logged before that is durable. After a commit that failed the log goes on where it
        # is: the other half is still needed, and replaying what is durable changes nothing.
        if self.log is not None:
            self._name_requests(self.log, self.state.commits)
            if not self.log.is_closed and not self._is_retrying:
                self._begin_log(self.log)
        self._committing = self.state.commits
        self._commit = commit
        return commit

    def finish(self) -> None:
        """The commit's `write` returned: what it freed may be used again."""
        freed = self.transaction.finish()
        self._durable = self._committing
        self._is_overlapping = self._is_retrying
        self._is_retrying = self._is_unsynced = False
        self._noted_lost = self._commit.lost
        if self.log is not None:
            self.log.mark_failed(failed=False)
        self.allocator.release(freed, self._commit.leased)

    def abort(self) -> None:
        """The commit's `write` raised: its changes join those of the next commit."""
        self.state.commits = self._durable
        self._is_retrying = True
        self.transaction.abort()

    def close(self) -> None:
        """Let go of files and the lock without committing."""
        self.catalog.close()
        self.backing.close()
        if self.log is not None:
            self.log.close()
        self._on_close()


def read_state(superblock: Superblock, catalog: Catalog) -> State:
    """The counters in a catalog. Raises `DamagedStoreError` if it is not this store's."""
    if catalog.get(Table.META, META_UUID) != superblock.uuid:
        raise DamagedStoreError("store and catalog do not belong together (different UUIDs)")
    value = catalog.get(Table.META, META_STATE)
    if value is None:
        raise DamagedStoreError("the catalog has no state record")
    return State.unpack(value)


def read_lost(superblock: Superblock, catalog: Catalog, state: State) -> list[tuple[int, int]]:
    """The ranges of the store that could not be written. Raises `DamagedStoreError`."""
    found = unpack_lost(catalog.get(Table.META, META_LOST) or b"")
    store_bytes = state.store_pages * superblock.page_size
    if any(sum(each) > store_bytes for each in found):
        raise DamagedStoreError("the catalog's lost bytes lie outside the store")
    return found


def check_state(superblock: Superblock, state: State, pages: int | None) -> None:
    """Raise unless the counters, from the catalog or the log, fit a store of so many `pages`."""
    if not superblock.metadata_pages <= state.store_pages <= superblock.limit_pages:
        raise DamagedStoreError("the catalog's store size is out of range")
    if not FIRST_ID <= state.next_id < MAX_U64 - _MOST_IDS:
        raise DamagedStoreError("the catalog's count of inodes is out of range")
    counts = (state.allocated_pages, state.inodes, state.tail_bytes, state.prealloc_pages)
    if max(*counts, state.commits) > _MOST_IDS:
        raise DamagedStoreError("the catalog's counts are out of range")
    if pages is not None and pages < state.store_pages:
        found, size = (count * superblock.page_size for count in (pages, state.store_pages))
        raise DamagedStoreError(f"the store file is truncated: {found} bytes of {size}")


def _check_root(transaction: Transaction) -> None:
    """Raise unless there is a root directory: without one nothing could be mounted."""
    value = transaction.get(Table.INODES, id_key(ROOT_INODE))
    if value is None or not Inode.unpack(ROOT_INODE, value).is_directory:
        raise DamagedStoreError("the catalog has no root directory (mapfs fsck tells more)")
