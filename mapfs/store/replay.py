"""Replaying the log: what operations changed since the last commit, put back into memory."""

from collections.abc import Iterable

from mapfs.errors import DamagedStoreError
from mapfs.format.extent import Extent
from mapfs.format.frames import Change, Kind, is_table, unpack_executed
from mapfs.format.records import FIXED_BYTES, Counted, State, Table, id_of, unpack_extent
from mapfs.store.transaction import Transaction


class Replay:
    """What a replay found, for each layer to adopt its part."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self.is_needed = False
        self.state: State | None = None
        self.counted: dict[int, Counted] = {}
        self.runs: dict[int, Extent] = {}
        # The kernel's ids of requests that were executed, and maybe not answered.
        self.requests: set[int] = set()

    def apply(self, changes: Iterable[Change]) -> None:
        """Put the changes of one operation into the running transaction."""
        self.is_needed = True
        for kind, key, value in changes:
            if not is_table(kind):
                self._note(kind, key, value or b"")
            elif value is None:
                self._transaction.delete(Table(kind), key)
            else:
                self._transaction.put(Table(kind), key, value)

    def _note(self, kind: int, key: bytes, value: bytes) -> None:
        if kind == Kind.STATE:
            self.state = State.unpack(value)
        elif kind == Kind.FOLDED:
            self.counted.clear()
        elif kind == Kind.COUNTED:
            self.counted[id_of(key)] = Counted.unpack(value)
        elif kind == Kind.RUN:
            self.runs[id_of(key)] = unpack_extent(value)
        elif kind == Kind.EXECUTED:
            self.requests |= unpack_executed(value, 0)
        elif kind == Kind.FIXED:
            self._put_fixed(key, value)
        else:
            raise DamagedStoreError(f"the log holds a change of unknown kind {kind}")

    def _put_fixed(self, key: bytes, value: bytes) -> None:
        if len(value) != FIXED_BYTES:
            raise DamagedStoreError("the log holds a part of an inode of the wrong length")
        whole = self._transaction.get(Table.INODES, key)
        # The catalog may be newer than the frame: what is gone there is deleted further on.
        if whole is not None:
            self._transaction.put(Table.INODES, key, value + whole[FIXED_BYTES:])
