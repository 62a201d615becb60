"""A commit that fails, or whose process dies, at each named moment."""

import contextlib
import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mapfs.errors import NoSpaceError
from mapfs.store.opening import open_store
from tests.crash.failpoints import FILES, Moment, at, first_changes, second_changes
from tests.crash.history import content_of, tree_of
from tests.crash.killing import (
    assert_as_committed,
    assert_nothing_lost,
    copy_of,
    pretend_another_boot,
    reopened,
    small_bundle,
)
from tests.crash.workload import CommittingFilesystem, Operation, Workload
from tests.unit.support import ME, ROOT

_REPOSITORY = Path(__file__).parents[2]
_FAILING = (Moment.BEFORE_DATA_SYNC, Moment.BEFORE_CATALOG_COMMIT)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return small_bundle(tmp_path / "t.mapfs")


@pytest.fixture
def workload(bundle: Path) -> Iterator[Workload]:
    """One commit of some files is made, and the changes for a second are gathered."""
    running = Workload(CommittingFilesystem(open_store(bundle)))
    first_changes(running)
    running.fs.commit()
    second_changes(running)
    yield running
    running.fs.store.close()


def _io_error() -> None:
    raise OSError(errno.EIO, "a failpoint")


@pytest.mark.parametrize("moment", Moment)
def test_a_process_that_ends_there_loses_nothing(bundle: Path, moment: Moment) -> None:
    program = [sys.executable, "-m", "tests.crash.failpoints", str(bundle), moment.name]
    assert subprocess.run(program, cwd=_REPOSITORY, check=False).returncode == 9
    with reopened(copy_of(bundle, bundle.with_name("copy.mapfs"))) as fs:
        tree = tree_of(fs)
        # The names are given in the order of the places.
        assert set(tree) == {b"", b"/sub", b"/b", b"/c", b"/d", b"/sub/d"}
        assert len(content_of(fs, fs.resolve(b"/b").number)) == 18_000
        assert len(content_of(fs, fs.resolve(b"/c").number)) == 10
        assert content_of(fs, fs.resolve(b"/d").number)[:5000] == bytes(5000)
        assert fs.listxattr(fs.resolve(b"/c").number) == [b"user.1"]


@pytest.mark.parametrize("moment", Moment)
def test_power_that_fails_there_leaves_one_of_the_two_commits(
    workload: Workload, bundle: Path, moment: Moment
) -> None:
    left = bundle.with_name("left.mapfs")
    taken: list[Path] = []

    def take() -> None:
        if not taken:
            taken.append(copy_of(bundle, left))

    at(moment, workload.fs, take)
    workload.fs.commit()
    pretend_another_boot(left, workload.fs.store)
    assert_as_committed(workload.history, 2 if moment.is_committed else 1, left)


@pytest.mark.parametrize("moment", _FAILING)
def test_a_commit_that_failed_is_made_by_the_next(
    workload: Workload, bundle: Path, moment: Moment
) -> None:
    left = bundle.with_name("left.mapfs")
    mend = at(moment, workload.fs, _io_error)
    with pytest.raises(OSError, match="a failpoint"):
        workload.fs.commit()
    workload.assert_contents()
    workload.change(Operation("create", 0))
    workload.change(Operation("write", 1, 0, 2000, 9000))
    assert_nothing_lost(workload, copy_of(bundle, left))
    pretend_another_boot(copy_of(bundle, left), workload.fs.store)
    assert_as_committed(workload.history, 1, left)
    mend()
    workload.fs.commit()
    workload.assert_contents()
    pretend_another_boot(copy_of(bundle, left), workload.fs.store)
    assert_as_committed(workload.history, 2, left)  # a commit that failed gave its number back


@pytest.mark.parametrize("moment", _FAILING)
def test_operations_between_commits_that_fail_are_logged(
    workload: Workload, bundle: Path, moment: Moment
) -> None:
    left = bundle.with_name("left.mapfs")
    mend = at(moment, workload.fs, _io_error)
    for _ in range(4):
        with pytest.raises(OSError, match="a failpoint"):
            workload.fs.commit()
        workload.change(Operation("append", 0, 0, 0, 700))
        assert not workload.fs.must_commit
        assert_nothing_lost(workload, copy_of(bundle, left))
    mend()
    workload.fs.commit()
    assert not workload.fs.must_commit
    workload.change(Operation("create", 0))
    assert_nothing_lost(workload, copy_of(bundle, left))


@pytest.mark.parametrize("moment", [Moment.BEFORE_PUNCH, Moment.AFTER_PUNCH])
def test_a_host_that_cannot_take_pages_back_does_not_undo_the_commit(
    workload: Workload, bundle: Path, moment: Moment
) -> None:
    at(moment, workload.fs, _io_error)
    workload.fs.commit()
    assert workload.fs.store._durable == 2
    left = copy_of(bundle, bundle.with_name("left.mapfs"))
    pretend_another_boot(left, workload.fs.store)
    assert_as_committed(workload.history, 2, left)
    number = _fill(workload)
    assert set(content_of(workload.fs, number)) == {1, 0}


@pytest.mark.parametrize("moment", _FAILING)
def test_pages_that_are_freed_in_vain_are_not_given_away(
    workload: Workload, bundle: Path, moment: Moment
) -> None:
    for _ in range(FILES):
        workload.change(Operation("unlink", 0))
    at(moment, workload.fs, _io_error)
    with pytest.raises(OSError, match="a failpoint"):
        workload.fs.commit()
    _fill(workload)
    left = copy_of(bundle, bundle.with_name("left.mapfs"))
    pretend_another_boot(left, workload.fs.store)
    assert_as_committed(workload.history, 1, left)


def _fill(workload: Workload) -> int:
    """A file of one byte a page that takes all that is free: the rest of a page must be zeros."""
    number = workload.fs.create(ROOT, b"full", 0o644, ME).number
    with contextlib.suppress(NoSpaceError):
        for page in range(10_000):
            workload.fs.write(number, page * 4096 + 77, b"\1")
    assert workload.fs.statfs().free_pages < 32  # the rest is set aside
    return number
