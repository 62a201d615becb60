"""Repair: make a damaged catalog whole again, saying each thing before it is done.

INODES, ENTRIES, EXTENTS and XATTRS are believed as far as they make sense and no others agree
against one of them; everything else is derived from them. Each pass needs only what the passes
before have made right, so a repair that is interrupted can be started again. Pages of data are
never written.
"""

from collections.abc import Iterator

from mapfs.errors import StoreInUseError
from mapfs.filesystem.check import Check
from mapfs.filesystem.repair.inodes import repair_attributes, repair_inodes, repair_orphans
from mapfs.filesystem.repair.names import repair_names
from mapfs.filesystem.repair.pages import PageRepair
from mapfs.filesystem.repair.tables import RepairTables
from mapfs.filesystem.repair.tree import repair_tree
from mapfs.store.store import Store


def repair(store: Store) -> Iterator[str]:
    """Repair a store that nobody else uses; yields a sentence before each change.

    Commits in batches. A store without findings is not touched. Raises `MapfsError` or `OSError`
    if a commit fails; what was committed before stays. Raises `StoreInUseError` while a process
    has files of the store mapped: pages that it sees may be given to other files.
    """
    if store.backing.leased(0, store.state.store_pages * store.page_size):
        raise StoreInUseError("a process has files of the store mapped")
    if next(Check(store).findings(), None) is None:
        return
    tables = RepairTables(store)
    yield from repair_inodes(tables)
    yield from repair_names(tables)
    yield from repair_tree(tables)
    yield from repair_orphans(tables)
    yield from repair_attributes(tables)
    yield from PageRepair(tables).actions()
    tables.commit()
