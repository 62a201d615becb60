"""The named moments of a commit, at which tests let it fail or the process end.

Run as a program, `failpoints.py BUNDLE MOMENT`, it ends at the moment in its second commit.
"""

import enum
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mapfs.store.opening import open_store
from tests.crash.workload import CommittingFilesystem, Operation, Workload


class Moment(enum.Enum):
    """Where `Commit.write` stands."""

    BEFORE_DATA_SYNC = "before the data are synced"
    BEFORE_CATALOG_COMMIT = "between the sync of the data and the commit of the catalog"
    BEFORE_PUNCH = "after the commit of the catalog, before pages are punched"
    AFTER_PUNCH = "after pages are punched"

    @property
    def is_committed(self) -> bool:
        """Whether the commit point lies before it."""
        return self in (Moment.BEFORE_PUNCH, Moment.AFTER_PUNCH)


def at(moment: Moment, fs: CommittingFilesystem, happen: Callable[[], None]) -> Callable[[], None]:
    """Let something happen at every such moment, until the function returned is called."""
    backing, catalog = fs.store.backing, fs.store.catalog
    owner, name, is_behind = {
        Moment.BEFORE_DATA_SYNC: (backing, "sync", False),
        Moment.BEFORE_CATALOG_COMMIT: (catalog, "apply", False),
        Moment.BEFORE_PUNCH: (backing, "punch", False),
        Moment.AFTER_PUNCH: (backing, "punch", True),
    }[moment]
    inner = getattr(owner, name)

    def interrupted(*arguments: Any) -> None:
        if is_behind:
            inner(*arguments)
        happen()
        if not is_behind:
            inner(*arguments)

    setattr(owner, name, interrupted)
    return partial(setattr, owner, name, inner)


FILES = 4


def first_changes(workload: Workload) -> None:
    """What the first commit holds: files with content."""
    for place in range(FILES):
        workload.change(Operation("create", 0))
        workload.change(Operation("write", place, 0, 0, 9000))


def second_changes(workload: Workload) -> None:
    """What the commit under test holds: something of every kind, pages that are freed too."""
    workload.change(Operation("overwrite", 0, 0, 100, 500))
    workload.change(Operation("append", 1, 0, 0, 9000))
    workload.change(Operation("truncate", 2, 0, 10))
    workload.change(Operation("unlink", 3))
    workload.change(Operation("create", 0))
    workload.change(Operation("write", 3, 0, 5000, 3000))
    workload.change(Operation("rename", 0, 7))
    workload.change(Operation("setxattr", 1, 1, 0, 40))


def main() -> None:
    bundle, moment = Path(sys.argv[1]), Moment[sys.argv[2]]
    workload = Workload(CommittingFilesystem(open_store(bundle)))
    first_changes(workload)
    workload.fs.commit()
    second_changes(workload)
    at(moment, workload.fs, lambda: os._exit(9))
    workload.fs.commit()


if __name__ == "__main__":
    main()
