"""SIGKILL of a real daemon: everything that a program was told is done is there after a remount.

The programs see their calls fail when the daemon is gone. Nothing repairs the store: it is mounted
again. With the kernel's writeback cache the bytes of a write(2) arrive at close(2) or fsync(2);
without it each write(2) that returned must be there.
"""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from mapfs.store.opening import open_store
from tests.crash.acknowledged import assert_answered_is_there, read_notes
from tests.crash.killing import pretend_another_boot
from tests.mount.volume import Volume, mapfs, run, wait_until

pytestmark = pytest.mark.mount

_REPOSITORY = Path(__file__).parents[2]
_WORKERS = 3


def take_away(volume: Volume, *, with_umount: bool = False) -> None:
    """Unmount what has no daemon any more; `mapfs umount` commits the log, others do not."""
    if with_umount:
        mapfs("umount", volume.mnt)
    else:
        run("fusermount3", "-u", volume.mnt)


@contextlib.contextmanager
def workers(programs: list[list[str | Path]]) -> Iterator[Callable[[], None]]:
    """Programs that end by themselves when the daemon is killed, which the block must do.

    Yields a function that fails if any has ended before.
    """
    started = [
        subprocess.Popen(program, cwd=_REPOSITORY, stderr=subprocess.PIPE, text=True)
        for program in programs
    ]

    def assert_working() -> None:
        assert all(each.poll() is None for each in started), "a program failed before the kill"

    try:
        yield assert_working
        for each in started:
            _, said = each.communicate(timeout=30)
            assert each.returncode == 0, said
    finally:
        for each in started:
            each.kill()
            each.communicate()


def await_lines(paths: list[Path], least: int) -> None:
    def written() -> bool:
        return all(path.exists() and path.read_bytes().count(b"\n") > least for path in paths)

    wait_until(written, "the programs to get going")


def kill_under_load(volume: Volume, notes: Path, random: Random) -> int:
    """One round: mount, work, kill at a random moment, mount, compare; returns what was answered.

    The rounds of one test go on with what the ones before left.
    """
    writeback = random.random() < 0.5
    cache = ["--cache", "writeback" if writeback else "writethrough"]
    commit = ["--commit", random.choice(("0.1", "1", "3600"))]
    fsync = ["--fsync"] if random.random() < 0.3 else []
    volume.mount(*cache, *commit)
    programs: list[list[str | Path]] = []
    paths = []
    for worker in range(_WORKERS):
        directory = volume.mnt / f"w{worker}-{random.getrandbits(32):x}"
        directory.mkdir()
        paths.append(notes / directory.name)
        seed = str(random.getrandbits(32))
        programs.append(
            [sys.executable, "-m", "tests.crash.acknowledged", directory, paths[-1], seed, *fsync]
        )
    with workers(programs) as assert_working:
        await_lines(paths, 20)
        time.sleep(random.random() * 0.6)
        assert_working()
        volume.kill_daemon()
    take_away(volume, with_umount=random.random() < 0.5)
    if random.random() < 0.5:  # and again before anything was committed
        volume.mount(*commit)
        volume.kill_daemon()
        take_away(volume)
    volume.mount("--cache", "writethrough", "--commit", "3600")
    answered = 0
    for path in sorted(notes.iterdir()):
        found = read_notes(path)
        assert_answered_is_there(volume.mnt / path.name, found)
        answered += found.answered
    volume.umount()
    volume.fsck()
    return answered


@pytest.mark.parametrize("seed", range(5))
def test_what_was_answered_is_there_after_a_kill(volume: Volume, tmp_path: Path, seed: int) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    assert kill_under_load(volume, notes, Random(seed)) > 3 * 20 / 2


_SQLITE = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
database.execute("pragma journal_mode=" + sys.argv[3])
database.execute("pragma synchronous=full")
database.execute("create table if not exists rows (id integer primary key, text blob)")
notes = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
number = 0
try:
    while True:
        number += 1
        with database:
            database.execute("begin immediate")
            database.execute("insert into rows values (?, randomblob(?))", (number, number % 5000))
            if number % 7 == 0:
                database.execute("delete from rows where id = ?", (number - 3,))
        os.write(notes, b"%d\\n" % number)
except sqlite3.Error:
    os._exit(0)  # closing it would fail as well
"""


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_database_keeps_every_transaction_that_was_committed(
    volume: Volume, tmp_path: Path, journal: str
) -> None:
    volume.mount("--commit", "3600")
    database, notes = volume.mnt / "db", tmp_path / "rows"
    with workers([[sys.executable, "-c", _SQLITE, database, notes, journal]]):
        await_lines([notes], 25)
        volume.kill_daemon()
    take_away(volume)
    volume.mount()
    with sqlite3.connect(database) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        rows = {number for (number,) in connection.execute("select id from rows")}
    connection.close()
    last = int(notes.read_text().splitlines()[-1])
    # The one under way may have been committed too.
    expected = {number for number in range(1, last + 1) if (number + 3) % 7 or number + 3 > last}
    assert rows >= expected - {last + 1 - 3}
    assert rows <= expected | {last + 1}


_GIT = """
import os, subprocess, sys
notes = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
git = ["git", "-C", sys.argv[1], "-c", "user.name=t", "-c", "user.email=t@example.org"]
git += ["-c", "gc.auto=0"]
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
subprocess.run(["git", "init", "-q", sys.argv[1]], check=True)
os.write(notes, b"\\n")
number = 0
while True:
    number += 1
    try:
        with open(os.path.join(sys.argv[1], f"f{number % 9}"), "w") as file:
            file.write(f"{number}\\n" * number)
        subprocess.run([*git, "add", "."], check=True, **quiet)
        subprocess.run([*git, "commit", "-qm", str(number)], check=True, **quiet)
        head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError):
        sys.exit(0)
    os.write(notes, head)
"""


def test_a_repository_keeps_every_commit(volume: Volume, tmp_path: Path) -> None:
    volume.mount("--commit", "3600")
    repository, notes = volume.mnt / "repository", tmp_path / "commits"
    with workers([[sys.executable, "-c", _GIT, repository, notes]]):
        await_lines([notes], 8)
        volume.kill_daemon()
    take_away(volume)
    volume.mount()
    (repository / ".git" / "index.lock").unlink(missing_ok=True)
    run("git", "-C", repository, "fsck", "--full", "--strict")
    history = run("git", "-C", repository, "rev-list", "HEAD").stdout.split()
    answered = notes.read_text().split()
    assert len(answered) >= 7
    # The newest may not have been noted yet.
    assert history[-len(answered) :] == answered[::-1]
    assert len(history) <= len(answered) + 1


@pytest.mark.skipif(shutil.which("fio") is None, reason="needs fio")
def test_what_fio_was_told_is_written_verifies(volume: Volume, tmp_path: Path) -> None:
    """fio notes how far it came, and reads only that again."""
    volume.mount("--cache", "writethrough", "--commit", "3600")
    file = volume.mnt / "verified"
    file.touch()
    os.truncate(file, 256 << 20)
    job = ["fio", "--name=v", f"--filename={file}", "--size=256m", "--bs=4k", "--rw=randwrite"]
    job += ["--ioengine=psync", "--verify=crc32c", "--fallocate=none"]
    write = [*job, "--do_verify=0", "--verify_state_save=1"]
    with subprocess.Popen(
        write, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as fio:
        wait_until(lambda: file.exists() and file.stat().st_blocks > 2000, "fio to write")
        volume.kill_daemon()
        fio.communicate(timeout=60)
        assert fio.returncode != 0
    take_away(volume)
    volume.mount()
    done = run(*job, "--verify_only", "--verify_state_load=1", "--output-format=json", cwd=tmp_path)
    (result,) = json.loads(done.stdout)["jobs"]
    assert result["error"] == 0
    assert result["read"]["total_ios"] > 200


def _changed_mount(volume: Volume, change: Callable[[Path], None]) -> None:
    """Two files, the first of them synced; the daemon is killed, and something happens."""
    volume.mount("--cache", "writethrough", "--commit", "3600")
    (volume.mnt / "synced").write_bytes(b"s" * 5000)
    fd = os.open(volume.mnt, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    (volume.mnt / "answered").write_bytes(b"a" * 5000)
    (volume.mnt / "synced").rename(volume.mnt / "renamed")
    volume.kill_daemon()
    take_away(volume)
    change(volume.store)
    volume.mount()


def test_killed_right_after_each_remount(volume: Volume) -> None:
    def kill_again(_: Path) -> None:
        for _attempt in range(2):
            volume.mount()
            volume.kill_daemon()
            take_away(volume)

    _changed_mount(volume, kill_again)
    assert (volume.mnt / "answered").read_bytes() == b"a" * 5000
    assert (volume.mnt / "renamed").read_bytes() == b"s" * 5000
    assert sorted(os.listdir(volume.mnt)) == ["answered", "renamed"]


def _boot_again(store: Path) -> None:
    with contextlib.closing(open_store(store, read_only=True)) as opened:
        pretend_another_boot(store, opened)


def test_after_another_boot_what_was_synced_is_there(volume: Volume) -> None:
    _changed_mount(volume, _boot_again)
    assert os.listdir(volume.mnt) == ["synced"]
    assert (volume.mnt / "synced").read_bytes() == b"s" * 5000


def test_a_full_log_forces_commits_and_fails_nothing(volume: Volume) -> None:
    """More than the log holds is changed, and much faster than commits are due."""
    volume.mount("--commit", "3600")
    files = [volume.mnt / f"f{number}" for number in range(8)]
    for file in files:
        file.touch()
    for turn in range(500):  # 30 MB of records
        os.setxattr(files[turn % 8], "user.large", os.fsencode(f"{turn:06}") * 10_000)
    volume.kill_daemon()
    take_away(volume)
    volume.mount()
    for turn in range(492, 500):
        value = os.getxattr(files[turn % 8], "user.large")
        assert value == os.fsencode(f"{turn:06}") * 10_000
