"""Operations on a filesystem below FUSE, drawn by Hypothesis, with a history of what they did."""

import errno
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hypothesis import strategies as st

from mapfs.errors import MapfsError
from mapfs.filesystem.caller import Caller
from mapfs.filesystem.filesystem import AccessTimes, Changes, Filesystem
from mapfs.format.records import ROOT_INODE
from mapfs.store.store import Store
from mapfs.store.syscalls import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE
from mapfs.store.transaction import Commit, LogSync
from tests.crash.history import Tree, Versions, content_of, lookup, pattern, tree_of

ME = Caller(1000, 1000)
_LONGEST = 40_000
_NAMES = (b"a", b"b", b"c", b"d")
# What a call may be refused for.
_REFUSALS = (
    *(errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EINVAL),
    *(errno.ENOSPC, errno.ENODATA, errno.EPERM),
)


@dataclass
class Frozen:
    """A state: the tree, and which version of each file."""

    tree: Tree
    versions: dict[int, int]


@dataclass
class History:
    """The state after every operation, and each version of a file.

    `begun` and `acknowledged` are the latest states that were to be durable, and that are. After
    `needed` nothing but times has changed.
    """

    files: dict[int, Versions] = field(default_factory=dict)
    states: list[Frozen] = field(default_factory=list)
    begun: int = 0
    acknowledged: int = 0
    needed: int = 0
    commits: dict[int, Frozen] = field(default_factory=dict)

    def add(self, tree: Tree, *, only_times: bool = False) -> None:
        versions = {inode: len(each.contents) - 1 for inode, each in self.files.items()}
        frozen = Frozen(tree, versions)
        is_new = frozen not in self.states[-1:]  # a call that was refused, say, changes nothing
        self.states.append(frozen)
        if is_new and not only_times:
            self.needed = len(self.states) - 1

    def commit(self, number: int) -> None:
        self.commits[number] = self.states[-1]

    def begin(self, sync: LogSync | None) -> None:
        """`sync` is None for a commit."""
        is_whole = sync is None or sync.is_whole
        self.begun = max(self.begun, len(self.states) - 1 if is_whole else self.needed)

    def acknowledge(self) -> None:
        self.acknowledged = self.begun


class CommittingFilesystem(Filesystem):
    """A filesystem that tells when a commit, or a sync of the log, begins and is acknowledged."""

    def __init__(self, store: Store) -> None:
        self.committing: Callable[[int], None] = lambda _: None
        self.begun: Callable[[LogSync | None], None] = lambda _: None
        self.acknowledged: Callable[[], None] = lambda: None
        super().__init__(store, access_times=AccessTimes.NONE)

    def begin_commit(self, *, closing: bool = False) -> Commit:
        commit = super().begin_commit(closing=closing)
        self.committing(self.store.state.commits)
        self.begun(None)
        return commit

    def end_commit(self, *, succeeded: bool) -> None:
        super().end_commit(succeeded=succeeded)
        if succeeded:
            self.acknowledged()

    def begin_log_sync(self, *, data_only: bool = False) -> LogSync | None:
        sync = super().begin_log_sync(data_only=data_only)
        if sync is not None:
            self.begun(sync)
        return sync

    def end_log_sync(self, *, succeeded: bool) -> None:
        super().end_log_sync(succeeded=succeeded)
        if succeeded:
            self.acknowledged()


@dataclass(frozen=True)
class Operation:
    """One call; what the numbers mean depends on the kind, and any numbers will do."""

    kind: str
    where: int = 0
    to: int = 0
    offset: int = 0
    length: int = 0


_CHANGES = (
    *("create", "create", "create", "write", "write", "write", "overwrite", "overwrite", "append"),
    *("truncate", "rename", "exchange", "link", "unlink", "unlink", "unlink_open", "forget"),
    *("mkdir", "rmdir", "symlink", "setxattr", "removexattr", "chmod", "punch", "zero"),
    *("allocate", "copy", "times", "times"),
)
_COMMITS = ("commit", "begin", "finish", "finish", "sync", "sync", "sync_data", "sync_data")


def operations(least: int = 20, most: int = 60) -> st.SearchStrategy[list[Operation]]:
    kinds = st.sampled_from(_CHANGES + _COMMITS)
    places = st.integers(0, len(_NAMES) * 2 - 1)
    offsets = st.one_of(st.integers(0, 8), st.integers(0, _LONGEST), st.sampled_from((4096, 8192)))
    lengths = st.one_of(st.integers(1, 600), st.integers(1, 20_000), st.sampled_from((4096, 12288)))
    one = st.builds(Operation, kinds, places, places, offsets, lengths)
    return st.lists(one, min_size=least, max_size=most)


class Workload:
    """Runs operations. Those that the filesystem refuses change nothing, here neither."""

    def __init__(self, fs: CommittingFilesystem, position: Callable[[], int] = lambda: 0) -> None:
        """`position` is where the journal stands."""
        self.fs = fs
        self.history = History()
        self._position = position
        self._generation = 0
        self._orphans: list[int] = []
        self._commit: Commit | None = None
        fs.committing = self.history.commit
        fs.begun, fs.acknowledged = self.history.begin, self.history.acknowledge
        self.history.add(tree_of(fs))
        self.history.commit(fs.store.state.commits)
        subdirectory = fs.mkdir(ROOT_INODE, b"sub", 0o755, ME).number
        self.history.add(tree_of(fs))
        self._places = [(parent, name) for parent in (ROOT_INODE, subdirectory) for name in _NAMES]

    def run(self, operations: list[Operation]) -> Iterator[Operation]:
        """Run all, yielding each when it is done; at the end no commit is under way."""
        waiting = deque(operations)
        while waiting:
            operation = waiting.popleft()
            self.step(operation, waiting)
            yield operation
        self._finish()

    def step(self, operation: Operation, waiting: deque[Operation]) -> None:
        """Run one operation; a commit runs up to two of `waiting` between its syncs."""
        if operation.kind == "commit":
            self.commit()
        elif operation.kind == "begin":
            if self._commit is None:
                self._commit = self.fs.begin_commit()
        elif operation.kind == "finish":
            during = [
                waiting.popleft()
                for _ in range(operation.where % 3)
                if waiting and waiting[0].kind in _CHANGES
            ]
            self._finish(during)
        elif operation.kind in ("sync", "sync_data"):
            during = [waiting.popleft()] if waiting and waiting[0].kind in _CHANGES else []
            self.sync(during, data_only=operation.kind == "sync_data")
        else:
            self.change(operation)

    def sync(self, during: list[Operation], *, data_only: bool = False) -> None:
        """Make all durable as an fsync does, running `during` between its syncs."""
        self._finish()
        sync = self.fs.begin_log_sync(data_only=data_only)
        if sync is None:
            self.fs.commit()
            return
        with self._after_sync(during):
            succeeded = sync.write()
        self.fs.end_log_sync(succeeded=succeeded)

    def commit(self) -> None:
        self._finish()
        self.fs.commit()

    def change(self, operation: Operation) -> None:
        with _refusals():
            getattr(self, f"_{operation.kind}")(operation)
        self.history.add(tree_of(self.fs), only_times=operation.kind == "times")

    def _finish(self, during: list[Operation] | None = None) -> None:
        if self._commit is None:
            return
        commit, self._commit = self._commit, None
        with self._after_sync(during or []):
            commit.write()
        self.fs.end_commit(succeeded=True)

    @contextmanager
    def _after_sync(self, during: list[Operation]) -> Iterator[None]:
        backing = self.fs.store.backing
        sync = backing.sync

        def sync_and_change() -> None:
            sync()
            for operation in during:
                self.change(operation)

        backing.sync = sync_and_change  # type: ignore[method-assign]
        try:
            yield
        finally:
            backing.sync = sync  # type: ignore[method-assign]

    def assert_contents(self) -> None:
        """The files are as the history has it."""
        for path, (number, *_) in tree_of(self.fs).items():
            if number in self.history.files:
                assert isinstance(number, int)
                assert content_of(self.fs, number) == self.history.files[number].last, path

    # Places: a number picks among those that suit, so that most calls succeed

    def _place(self, index: int) -> tuple[int, bytes]:
        return self._places[index % len(self._places)]

    def _free_place(self, index: int) -> tuple[int, bytes]:
        free = [place for place in self._places if not lookup(self.fs, *place)]
        return free[index % len(free)] if free else self._place(index)

    def _taken_place(self, index: int, *, of_file: bool = False) -> tuple[int, bytes]:
        numbers = [(place, lookup(self.fs, *place)) for place in self._places]
        taken = [
            place
            for place, number in numbers
            if (number in self.history.files if of_file else number)
        ]
        if not taken:
            self._create(Operation("create", index))
            return self._taken_place(index, of_file=of_file)
        return taken[index % len(taken)]

    def _number(self, index: int) -> int:
        return lookup(self.fs, *self._taken_place(index))

    def _file(self, index: int) -> int:
        return lookup(self.fs, *self._taken_place(index, of_file=True))

    # Names

    def _create(self, operation: Operation) -> None:
        number = self.fs.create(*self._free_place(operation.where), 0o644, ME).number
        self.history.files[number] = Versions([self._position()], [b""])
        self.history.add(tree_of(self.fs))  # it may be a part of another operation

    def _mkdir(self, operation: Operation) -> None:
        self.fs.mkdir(*self._free_place(operation.where), 0o750, ME)

    def _symlink(self, operation: Operation) -> None:
        target = b"t" * (operation.length % 99 + 1)
        self.fs.symlink(*self._free_place(operation.where), target, ME)

    def _link(self, operation: Operation) -> None:
        self.fs.link(self._file(operation.where), *self._free_place(operation.to))

    def _rename(self, operation: Operation, flags: int = 0) -> None:
        source, target = self._taken_place(operation.where), self._place(operation.to)
        victim = lookup(self.fs, *target)
        self.fs.rename(*source, *target, flags)
        self._dropped(victim)

    def _exchange(self, operation: Operation) -> None:
        source, target = self._taken_place(operation.where), self._taken_place(operation.to)
        self.fs.rename(*source, *target, 2)

    def _unlink(self, operation: Operation) -> None:
        place = self._taken_place(operation.where, of_file=operation.length % 2 == 0)
        number = lookup(self.fs, *place)
        self.fs.unlink(*place)
        self._dropped(number)

    def _unlink_open(self, operation: Operation) -> None:
        place = self._taken_place(operation.where, of_file=True)
        number = lookup(self.fs, *place)
        self.fs.unlink(*place)
        if self.fs.is_orphan(number):
            self._orphans.append(number)

    def _forget(self, operation: Operation) -> None:
        if self._orphans:
            self.fs.forget(self._orphans.pop(operation.where % len(self._orphans)))

    def _rmdir(self, operation: Operation) -> None:
        directories = [
            place
            for place in self._places
            if (number := lookup(self.fs, *place)) and self.fs.inode(number).is_directory
        ]
        if directories:
            place = directories[operation.where % len(directories)]
            number = lookup(self.fs, *place)
            self.fs.rmdir(*place)
            self._dropped(number)

    def _dropped(self, number: int) -> None:
        if number and self.fs.is_orphan(number):
            self.fs.forget(number)

    # Contents

    def _write(self, operation: Operation) -> None:
        self._write_at(self._file(operation.where), operation.offset, operation.length)

    def _overwrite(self, operation: Operation) -> None:
        number = self._file(operation.where)
        size = self.fs.inode(number).size
        if size:
            offset = operation.offset % size
            self._write_at(number, offset, min(operation.length, size - offset))

    def _append(self, operation: Operation) -> None:
        number = self._file(operation.where)
        size = self.fs.inode(number).size
        if size < _LONGEST:
            self._write_at(number, size, operation.length)

    def _write_at(self, number: int, offset: int, length: int) -> None:
        self._generation += 1
        data = pattern(number, self._generation, length)
        position = self._position()
        self.fs.write(number, offset, data)
        self._put(number, position, offset, data)

    def _put(self, number: int, position: int, offset: int, data: bytes) -> None:
        before = self.history.files[number].last
        content = before[:offset].ljust(offset, b"\0") + data + before[offset + len(data) :]
        self.history.files[number].add(position, content)

    def _truncate(self, operation: Operation) -> None:
        number, size = self._file(operation.where), operation.offset
        position = self._position()
        self.fs.setattr(number, Changes(size=size))
        before = self.history.files[number].last
        self.history.files[number].add(position, before[:size].ljust(size, b"\0"))

    def _punch(self, operation: Operation) -> None:
        self._zero_range(operation, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

    def _zero(self, operation: Operation) -> None:
        self._zero_range(operation, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)

    def _zero_range(self, operation: Operation, mode: int) -> None:
        number = self._file(operation.where)
        position = self._position()
        self.fs.fallocate(number, mode, operation.offset, operation.length)
        within = max(0, len(self.history.files[number].last) - operation.offset)
        zeros = bytes(min(operation.length, within))
        if zeros:
            self._put(number, position, operation.offset, zeros)

    def _allocate(self, operation: Operation) -> None:
        number = self._file(operation.where)
        self.fs.fallocate(number, FALLOC_FL_KEEP_SIZE, operation.offset, operation.length)

    def _copy(self, operation: Operation) -> None:
        source, target = self._file(operation.where), self._file(operation.to)
        data = self.history.files[source].last[: operation.length]
        position = self._position()
        done = self.fs.copy_range(source, 0, target, operation.offset, operation.length)
        if done:
            self._put(target, position, operation.offset, data[:done])

    # Attributes

    def _setxattr(self, operation: Operation) -> None:
        name = b"user.%d" % (operation.to % 3)
        self._generation += 1
        value = pattern(0, self._generation, operation.length % 300)
        self.fs.setxattr(self._number(operation.where), name, value)

    def _removexattr(self, operation: Operation) -> None:
        self.fs.removexattr(self._number(operation.where), b"user.%d" % (operation.to % 3))

    def _chmod(self, operation: Operation) -> None:
        self.fs.setattr(self._number(operation.where), Changes(mode=operation.length & 0o777))

    def _times(self, operation: Operation) -> None:
        self.fs.setattr(self._number(operation.where), Changes(mtime=operation.offset))


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except MapfsError as error:
        if error.errno not in _REFUSALS:
            raise
