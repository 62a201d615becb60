"""Requests of the kernel in the log: a daemon that takes over must not execute them again."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from mapfs.filesystem.filesystem import Filesystem
from tests.unit.support import ME, ROOT, assert_sound, code_of, names, new_bundle, open_fs


def request(fs: Filesystem, number: int, call: Callable[[], object]) -> int:
    """Execute a call as a transport does; returns its errno."""
    fs.request = number
    code = code_of(call)
    fs.request = 0
    return code


def killed(fs: Filesystem, bundle: Path) -> Filesystem:
    """The filesystem after its daemon was killed and another one took over."""
    fs.store.close()
    return open_fs(bundle)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return new_bundle(tmp_path / "t.mapfs")


@pytest.fixture
def fs(bundle: Path) -> Filesystem:
    return open_fs(bundle)


def create(fs: Filesystem, name: bytes) -> Callable[[], object]:
    return lambda: fs.create(ROOT, name, 0o644, ME)


def test_what_was_executed_is_known(fs: Filesystem, bundle: Path) -> None:
    request(fs, 10, create(fs, b"a"))
    assert request(fs, 12, create(fs, b"a")) == errno.EEXIST
    request(fs, 14, lambda: fs.rename(ROOT, b"a", ROOT, b"a"))  # changes nothing
    create(fs, b"b")()
    fs = killed(fs, bundle)
    assert fs.store.replayed.requests == fs.unanswered == {10, 14}
    assert names(fs) == [b"a", b"b"]
    assert_sound(fs)
    fs.close()


def test_what_waits_for_a_commit_is_known_whatever_is_committed(
    fs: Filesystem, bundle: Path
) -> None:
    request(fs, 10, create(fs, b"a"))
    request(fs, 12, create(fs, b"b"))
    fs.unanswered.add(12)
    for number in range(5):
        fs.commit()
        create(fs, b"%d" % number)()
    fs = killed(fs, bundle)
    assert fs.store.replayed.requests == {12}
    fs = killed(fs, bundle)
    assert fs.store.replayed.requests == {12}
    fs.unanswered.clear()
    for number in range(5, 8):
        create(fs, b"%d" % number)()
        fs.commit()
    fs = killed(fs, bundle)
    assert fs.store.replayed.requests == set()
    fs.close()


@pytest.mark.parametrize(
    ("is_durable", "is_logged_again"), [(False, False), (True, False), (True, True)]
)
def test_what_did_not_fit_the_log_is_known_once_it_is_committed(
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_durable: bool,  # noqa: FBT001
    is_logged_again: bool,  # noqa: FBT001
) -> None:
    monkeypatch.setattr("mapfs.store.log.HALF_BYTES", 8192)
    monkeypatch.setattr("mapfs.store.log.LOG_BYTES", 16384)
    fs = open_fs(bundle)
    number = 0
    while not fs.must_commit:
        assert number < 1000, "the log does not get full"
        number += 2
        request(fs, number, create(fs, b"%d" % number))
    fs.unanswered.add(number)
    commit = fs.begin_commit()
    if is_durable:
        commit.write()
    if is_logged_again:
        fs.end_commit(succeeded=True)
    fs = killed(fs, bundle)
    assert (number in fs.store.replayed.requests) is is_durable
    assert (b"%d" % number in names(fs)) is is_durable
    fs.close()


def test_what_is_done_while_the_log_is_full_is_known_when_it_goes_on(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mapfs.store.log.HALF_BYTES", 8192)
    monkeypatch.setattr("mapfs.store.log.LOG_BYTES", 16384)
    fs = open_fs(bundle)
    while not fs.must_commit:
        assert fs.store.state.next_id < 1000, "the log does not get full"
        create(fs, b"%d" % fs.store.state.next_id)()
    commit = fs.begin_commit()
    request(fs, 10, create(fs, b"meanwhile"))
    fs.unanswered.add(10)
    commit.write()
    fs.end_commit(succeeded=True)
    fs = killed(fs, bundle)
    assert 10 in fs.store.replayed.requests
    assert b"meanwhile" in names(fs)
    fs.close()


def test_a_new_connection_begins_without_any(fs: Filesystem, bundle: Path) -> None:
    request(fs, 10, create(fs, b"a"))
    fs.unanswered.add(10)
    fs = killed(fs, bundle)
    fs.forget_requests()
    assert fs.store.replayed.requests == fs.unanswered == set()
    request(fs, 2, create(fs, b"b"))
    fs = killed(fs, bundle)
    assert fs.store.replayed.requests == {2}
    assert names(fs) == [b"a", b"b"]
    fs.close()
