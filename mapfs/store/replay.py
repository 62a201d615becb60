"""Replaying the log: what operations changed since the last commit, put back into memory."""

from collections.abc import Iterable

from mapfs.errors import DamagedStoreError
from mapfs.format.extent import Extent
from mapfs.format.frames import Change, Kind, is_table
from mapfs.format.records import Counted, State, Table, id_of, unpack_extent
from mapfs.store.transaction import Transaction


class Replay:
    """What a replay found, for each layer to adopt its part."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self.is_needed = False
        self.state: State | None = None
        self.counted: dict[int, Counted] = {}
        self.runs: dict[int, Extent] = {}

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
        else:
            raise DamagedStoreError(f"the log holds a change of unknown kind {kind}")
