"""The worker of a mount dies, or is replaced: whoever uses the mount notices a pause, no more."""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeVolume
from tests.mount.volume import Volume, mapfs, refusal, run, wait_until

pytestmark = pytest.mark.mount

_REPOSITORY = Path(__file__).parents[2]
_EXCHANGE = 2
_AT_FDCWD = -100


def kill_worker(volume: Volume) -> None:
    """Kill the worker and wait for the next one."""
    died = volume.daemon
    os.kill(died, signal.SIGKILL)
    wait_until(lambda: volume.lock_holders - {died}, "another worker")


def exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.renameat2(
        _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), ctypes.c_uint(_EXCHANGE)
    )
    assert done == 0, errno.errorcode[ctypes.get_errno()]


@pytest.fixture
def moment(tmp_path: Path) -> Path:
    return tmp_path / "moment"


@pytest.fixture
def dying(make_volume: MakeVolume, moment: Path) -> Volume:
    """A mount whose workers die when the file `moment` says so."""
    volume = make_volume()
    volume.mkfs()
    program = _REPOSITORY / "tests/mount/dying_daemon.py"
    run(
        *(sys.executable, program, "mount", volume.store, volume.mnt, "--log", volume.log),
        env={**os.environ, "MAPFS_TEST_MOMENT": str(moment), "PYTHONPATH": str(_REPOSITORY)},
    )
    return volume


def _prepared(base: Path) -> Path:
    """A directory with something to change in every way."""
    base.mkdir()
    for name in ("file", "one", "other", "old"):
        (base / name).write_text(name)
    (base / "empty").mkdir()
    os.setxattr(base / "file", "user.there", b"1")
    return base


def _set_new(base: Path) -> None:
    os.setxattr(base / "file", "user.new", b"2", os.XATTR_CREATE)


_CALLS: dict[str, Callable[[Path], object]] = {
    "MKNOD": lambda base: os.mkfifo(base / "fifo"),
    "MKDIR": lambda base: (base / "made").mkdir(),
    "SYMLINK": lambda base: (base / "link").symlink_to("target"),
    "LINK": lambda base: os.link(base / "file", base / "further"),
    "UNLINK": lambda base: (base / "old").unlink(),
    "RMDIR": lambda base: (base / "empty").rmdir(),
    "RENAME2": lambda base: exchange(base / "one", base / "other"),
    "SETXATTR": _set_new,
    "REMOVEXATTR": lambda base: os.removexattr(base / "file", "user.there"),
    "SETATTR": lambda base: (base / "file").chmod(0o600),
}


@pytest.mark.parametrize("when", ["before", "after"])
def test_each_call_is_executed_once(dying: Volume, moment: Path, when: str) -> None:
    base = _prepared(dying.mnt / "d")
    for name, call in _CALLS.items():
        moment.write_text(f"{when} {name}")
        call(base)
        assert not moment.exists(), f"no worker died at {name}"
    moment.write_text(f"{when} RENAME")
    # Without flags it is RENAME2 or RENAME, as the kernel likes.
    (base / "fifo").rename(base / "moved")
    moment.unlink(missing_ok=True)
    names = {"made", "link", "further", "file", "one", "other", "moved"}
    assert set(os.listdir(base)) == names
    assert (base / "one").read_text() == "other"
    assert (base / "other").read_text() == "one"
    assert os.readlink(base / "link") == "target"
    assert (base / "file").stat().st_nlink == 2
    assert (base / "file").stat().st_mode & 0o777 == 0o600
    assert os.listxattr(base / "file") == ["user.new"]
    assert base.stat().st_nlink == 3
    dying.umount()
    dying.mount()
    assert set(os.listdir(dying.mnt / "d")) == names


def test_a_call_that_fails_fails_the_same_way(dying: Volume, moment: Path) -> None:
    (dying.mnt / "full").mkdir()
    (dying.mnt / "full" / "file").touch()
    moment.write_text("before RMDIR")
    with pytest.raises(OSError, match="not empty") as failure:
        os.rmdir(dying.mnt / "full")
    assert failure.value.errno == errno.ENOTEMPTY
    assert not moment.exists()


def test_what_is_open_locked_and_dirty_stays_so(volume: Volume) -> None:
    mnt = volume.mount("--commit", "3600")
    (mnt / "gone").write_bytes(b"unlinked" * 1000)
    (mnt / "mapped").write_bytes(bytes(8192))
    with (
        (mnt / "gone").open("r+b", buffering=0) as gone,
        (mnt / "mapped").open("r+b") as mapped,
        (mnt / "locked").open("w") as locked,
        (mnt / "dirty").open("w+b", buffering=0) as dirty,
        mmap.mmap(mapped.fileno(), 8192) as mapping,
    ):
        (mnt / "gone").unlink()
        fcntl.flock(locked, fcntl.LOCK_EX)
        fcntl.lockf(mapped, fcntl.LOCK_EX)
        dirty.write(b"in the kernel's cache only")
        mapping[4096:4102] = b"mapped"
        for _ in range(3):
            kill_worker(volume)
            gone.write(b"more")
        assert os.pread(gone.fileno(), 20, 0) == b"moremoremoreinkedunl"[:12] + b"nked" + b"unli"
        os.posix_fadvise(gone.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(gone.fileno(), 12, 0) == b"moremoremore"
        assert os.fstat(gone.fileno()).st_nlink == 0
        with (mnt / "locked").open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fsync(dirty.fileno())
        mapping.flush()
    volume.remount()
    assert (mnt / "dirty").read_bytes() == b"in the kernel's cache only"
    assert (mnt / "mapped").read_bytes()[4096:4102] == b"mapped"
    assert sorted(os.listdir(mnt)) == ["dirty", "locked", "mapped"]


def test_a_call_in_flight_only_waits(volume: Volume) -> None:
    """Calls of many kinds that a stopped worker has not answered when it is killed."""
    mnt = volume.mount()
    (mnt / "read").write_bytes(b"r" * 100_000)
    with (mnt / "read").open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    os.kill(volume.daemon, signal.SIGSTOP)
    results: dict[str, object] = {}

    def note(name: str, call: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=lambda: results.__setitem__(name, call()))
        thread.start()
        return thread

    threads = [
        note("read", (mnt / "read").read_bytes),
        note("mkdir", (mnt / "d").mkdir),
        note("statvfs", lambda: os.statvfs(mnt).f_bsize),
    ]
    kill_worker(volume)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert results["read"] == b"r" * 100_000
    assert results["statvfs"] == 4096
    assert (mnt / "d").is_dir()


_SQLITE = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("create table rows (id integer primary key, text blob)")
number = 0
while not os.path.exists(sys.argv[2]):
    number += 1
    database.execute("insert into rows values (?, randomblob(?))", (number, number % 3000))
print(number)
"""

_GIT = """
cd "$1" && git init -q . && git config user.name t && git config user.email t@example.org
git config gc.auto 0
n=0
while [ ! -e "$2" ]; do
    n=$((n + 1)); seq $n > f$((n % 9)); git add . && git commit -qm $n || exit 1
done
git fsck --strict && [ "$(git rev-list --count HEAD)" = $n ]
"""

_FIO = """
while [ ! -e "$2" ]; do
    fio --name=v --directory="$1" --size=4m --bs=4k --rw=randwrite --verify=crc32c --fsync=16 \
        --do_verify=1 --verify_state_save=0 --verify_fatal=1 > "$1/../fio.out" 2>&1 ||
        { cat "$1/../fio.out"; exit 1; }
done
"""


@contextlib.contextmanager
def programs(base: Path, stop: Path) -> Iterator[list["subprocess.Popen[str]"]]:
    """sqlite, git and fio at work until there is a file `stop`; none may see an error."""
    for name in ("git", "fio"):
        (base / name).mkdir()
    commands: list[list[str | Path]] = [
        [sys.executable, "-c", _SQLITE, base / "db", stop],
        ["sh", "-c", _GIT, "sh", base / "git", stop],
    ]
    if shutil.which("fio"):
        commands.append(["sh", "-c", _FIO, "sh", base / "fio", stop])
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    started = [subprocess.Popen(command, **pipes) for command in commands]  # type: ignore[call-overload]
    try:
        yield started
        stop.touch()
        for each in started:
            said, _ = each.communicate(timeout=100)
            assert each.returncode == 0, said
    finally:
        stop.touch()
        for each in started:
            each.kill()
            each.communicate()


def kill_at_work(volume: Volume, kills: int, pause: Callable[[], None]) -> None:
    """Kill the worker again and again under programs that verify what they read."""
    mnt = volume.mount()
    stop = volume.log.with_name("stop")
    with programs(mnt, stop) as started:
        wait_until((mnt / "git" / "f5").exists, "the programs to get going")
        for _ in range(kills):
            kill_worker(volume)
            pause()
            assert all(each.poll() is None for each in started), "a program ended"
    with contextlib.closing(sqlite3.connect(mnt / "db")) as database:
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
        ((rows, last),) = database.execute("select count(*), max(id) from rows").fetchall()
        assert rows == last
    volume.remount()
    run("git", "-C", mnt / "git", "fsck", "--strict")


@pytest.mark.slow
def test_twenty_kills_in_a_row_fail_nothing(volume: Volume) -> None:
    kill_at_work(volume, 20, lambda: None)


def test_the_mount_lives_on_without_its_supervisor(volume: Volume) -> None:
    mnt = volume.mount()
    supervisor = volume.supervisor
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: volume.daemons == {volume.daemon}, "the supervisor to end")
    (mnt / "file").write_text("there")
    with (mnt / "file").open() as file:
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == 5
    message = refusal(mapfs("restart", mnt, status=1))
    assert "no supervisor" in message
    volume.remount()
    assert (mnt / "file").read_text() == "there"


def test_a_worker_that_dies_before_it_has_the_connection_is_replaced(
    dying: Volume, moment: Path
) -> None:
    moment.write_text("receiving")
    os.kill(dying.daemon, signal.SIGKILL)
    (dying.mnt / "file").write_text("there")
    assert not moment.exists()


@pytest.mark.parametrize("how", ["opening", "opening slowly"])
def test_a_worker_that_cannot_begin_is_given_up_on(dying: Volume, moment: Path, how: str) -> None:
    """The log, which has an error then, is read here; nothing else may be wrong."""
    (dying.mnt / "file").write_text("answered")
    moment.write_text(how)
    os.kill(dying.daemon, signal.SIGKILL)
    dying.wait_for_end()
    assert not dying.mounted
    errors = [line for line in dying.log.read_text().splitlines() if "ERROR" in line]
    assert len(errors) == 1
    assert "unmounted" in errors[0]
    dying.log.unlink()
    dying.mount()
    assert (dying.mnt / "file").read_text() == "answered"


def test_asked_to_leave_it_does_not_wait_for_a_worker_that_cannot_begin(
    dying: Volume, moment: Path
) -> None:
    (dying.mnt / "file").write_text("answered")
    supervisor = dying.supervisor
    moment.write_text("opening slowly")
    os.kill(dying.daemon, signal.SIGKILL)
    os.kill(supervisor, signal.SIGTERM)
    dying.wait_for_end()
    assert not dying.mounted
    assert dying.log.read_text().count("takes over") == 1
    dying.log.unlink()
    dying.mount()
    assert (dying.mnt / "file").read_text() == "answered"


def test_a_restart_goes_on_with_everything(volume: Volume) -> None:
    mnt = volume.mount("--commit", "3600")
    supervisor, worker = volume.supervisor, volume.daemon
    commands = Path(f"/proc/{supervisor}/cmdline").read_bytes()
    with (mnt / "open").open("w+b", buffering=0) as file, (mnt / "gone").open("w+b") as gone:
        (mnt / "gone").unlink()
        file.write(b"before")
        gone.write(b"unlinked")
        for _ in range(2):
            mapfs("restart", mnt)
            assert volume.supervisor == supervisor
            assert volume.daemon != worker
            worker = volume.daemon
            file.write(b" after")
        assert Path(f"/proc/{supervisor}/cmdline").read_bytes() != commands
        kill_worker(volume)
        gone.seek(0)
        assert gone.read() == b"unlinked"
    volume.remount()
    assert (mnt / "open").read_bytes() == b"before after after"


@contextlib.contextmanager
def seeking(mnt: Path) -> Iterator[list[int]]:
    """A program that asks for holes while the kernel has yet to write; gives what it was told."""
    found: list[int] = []
    stop = threading.Event()
    data = os.urandom(1 << 20) * 40

    def seek() -> None:
        while not stop.is_set():
            with (mnt / "sought").open("w+b", buffering=0) as file:
                file.write(data)
                found.append(os.lseek(file.fileno(), 0, os.SEEK_HOLE))

    thread = threading.Thread(target=seek, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive(), "a seek hangs"
    assert set(found) == {len(data)}


def wait_for_more(found: list[int]) -> None:
    before = len(found)
    wait_until(lambda: len(found) > before, "a seek to be answered")


def test_a_worker_may_die_while_a_seek_waits_for_the_kernel(volume: Volume) -> None:
    """It waits for WRITEs, which nobody but the next worker can serve."""
    mnt = volume.mount()
    with seeking(mnt) as found:
        for _ in range(10):
            wait_for_more(found)
            kill_worker(volume)


def test_a_restart_while_a_seek_waits_for_the_kernel(volume: Volume) -> None:
    mnt = volume.mount()
    with seeking(mnt) as found:
        for _ in range(3):
            wait_for_more(found)
            mapfs("restart", mnt)


def test_a_seek_that_waits_fails_when_nobody_is_left_to_serve_it(volume: Volume) -> None:
    """What has the kernel write back must not keep the mount from ending."""
    mnt = volume.mount()
    served_by = [volume.supervisor, volume.daemon]
    file = os.open(mnt / "file", os.O_RDWR | os.O_CREAT)
    failures: list[OSError] = []

    def seek() -> None:
        try:
            while True:
                os.pwrite(file, data, 0)
                os.lseek(file, 0, os.SEEK_HOLE)
                os.ftruncate(file, 0)
        except OSError as error:
            failures.append(error)

    data = os.urandom(1 << 20) * 40
    thread = threading.Thread(target=seek, daemon=True)
    thread.start()
    wait_until(writes_back, "the kernel to write back")
    for pid in served_by:
        os.kill(pid, signal.SIGKILL)
    thread.join(60)
    assert failures, "the seek hangs"
    with contextlib.suppress(OSError):
        os.close(file)
    wait_until(lambda: not writes_back(), "all processes to end")
    mapfs("umount", mnt)


def writes_back() -> bool:
    """Whether there is a process that has the kernel write back, for whichever mount."""
    done = subprocess.run(
        ["pgrep", "-f", "write_back_process.py"], check=False, capture_output=True
    )
    return done.returncode == 0


def test_a_restart_that_cannot_work_is_refused(volume: Volume, tmp_path: Path) -> None:
    """A module that the installed code imports does not load: the worker stays."""
    (tmp_path / "broken").mkdir()
    broken = tmp_path / "broken" / "trio.py"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "broken")}
    volume.mount(env=environment)
    worker = volume.daemon
    broken.write_text("raise ImportError('not whole')")
    os.kill(volume.supervisor, signal.SIGUSR1)
    wait_until(lambda: "no restart" in volume.log.read_text(), "the refusal")
    assert "not whole" in volume.log.read_text()
    assert volume.daemon == worker
    volume.log.unlink()


def test_what_has_no_supervisor_is_not_restarted(make_volume: MakeVolume) -> None:
    volume = make_volume()
    message = refusal(mapfs("restart", volume.mnt, status=1))
    assert "no mapfs is mounted there" in message
    volume.mkfs()
    volume.mount("--transport", "pyfuse3")
    message = refusal(mapfs("restart", volume.mnt, status=1))
    assert "no supervisor" in message
