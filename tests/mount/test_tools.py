"""The programs that people use, on a mount, for what they use them for."""

import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mount.tree import describe, make_tree
from tests.mount.volume import Volume, both_transports, process, run, wait_until

pytestmark = pytest.mark.mount

PAGE = 4096


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree on the host with everything that copying has to keep."""
    top = tmp_path_factory.mktemp("tree") / "tree"
    make_tree(top)
    return top


# Copying


@both_transports
def test_cp_keeps_everything_in_both_directions(volume: Volume, tree: Path, tmp_path: Path) -> None:
    mnt = volume.mount()
    run("cp", "-a", tree, mnt)
    assert describe(mnt / "tree") == describe(tree)
    volume.remount()
    assert describe(mnt / "tree") == describe(tree)
    run("cp", "-a", mnt / "tree", tmp_path / "back")
    assert describe(tmp_path / "back") == describe(tree)
    run("cp", "-a", mnt / "tree", mnt / "second")
    assert describe(mnt / "second") == describe(tree)
    run("diff", "-r", "--no-dereference", tree / "directory 0", mnt / "second" / "directory 0")


@both_transports
def test_rsync_keeps_everything_and_has_nothing_to_do_twice(
    volume: Volume, tree: Path, tmp_path: Path
) -> None:
    mnt = volume.mount()
    back = tmp_path / "back"
    rsync = ("rsync", "-aHAX", "--specials", "--devices", "--itemize-changes")
    run(*rsync, f"{tree}/", f"{mnt}/tree/")
    assert describe(mnt / "tree") == describe(tree)
    assert run(*rsync, f"{tree}/", f"{mnt}/tree/").stdout == ""
    volume.remount()
    assert run(*rsync, "--checksum", f"{tree}/", f"{mnt}/tree/").stdout == ""
    run(*rsync, f"{mnt}/tree/", f"{back}/")
    assert describe(back) == describe(tree)
    assert run(*rsync, "--checksum", "--delete", f"{mnt}/tree/", f"{back}/").stdout == ""


def test_rsync_updates_files_in_place_and_deletes(mnt: Path, tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    run("cp", "-a", tree, copy)
    run("cp", "-a", tree, mnt / "tree")
    with (copy / "of-3000000-bytes").open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"changed in the middle")
    shutil.rmtree(copy / "directory 3")
    run("rsync", "-aHAX", "--inplace", "--no-whole-file", "--delete", f"{copy}/", f"{mnt}/tree/")
    assert describe(mnt / "tree") == describe(copy)


@both_transports
def test_tar_keeps_everything_in_both_directions(
    volume: Volume, tree: Path, tmp_path: Path
) -> None:
    mnt = volume.mount()
    flags = ("--format=posix", "--xattrs", "--xattrs-include=*", "--acls", "--sparse")
    without = dict(describe(tree))
    without.pop("socket")  # tar leaves sockets out
    run("tar", *flags, "--exclude=./socket", "-C", tree, "-cf", mnt / "in.tar", ".")
    (mnt / "tree").mkdir()
    run("tar", *flags, "-C", mnt / "tree", "-xpf", mnt / "in.tar")
    assert describe(mnt / "tree") == without
    volume.remount()
    run("tar", *flags, "-C", mnt / "tree", "-cf", tmp_path / "out.tar", ".")
    (tmp_path / "back").mkdir()
    run("tar", *flags, "-C", tmp_path / "back", "-xpf", tmp_path / "out.tar")
    assert describe(tmp_path / "back") == without
    run("tar", *flags, "--compare", "-C", mnt / "tree", "-f", tmp_path / "out.tar")


@both_transports
def test_rm_of_a_tree_gives_its_space_back(mnt: Path, tree: Path) -> None:

    def used() -> tuple[int, int]:
        usage = os.statvfs(mnt)
        return usage.f_blocks - usage.f_bfree, usage.f_files - usage.f_ffree

    before = used()
    run("cp", "-a", tree, mnt)
    assert used() > before
    run("rm", "-rf", mnt / "tree")
    assert os.listdir(mnt) == []
    wait_until(lambda: used() == before, "the kernel to forget the files")


def test_find_sees_the_same_tree_as_on_the_host(mnt: Path, tree: Path) -> None:
    run("cp", "-a", tree, mnt)
    queries: list[tuple[str, ...]] = [
        ("-type", "f", "-size", "+4096c"),
        ("-type", "f", "-empty"),
        ("-type", "d", "-links", "2"),
        ("-type", "d", "-empty"),
        ("-type", "l"),
        ("-type", "p", "-o", "-type", "s"),
        ("-samefile", "tree/of-5120-bytes"),
        ("-perm", "-4000"),
        ("-newermt", "2009-02-14"),
        ("-name", "*.txt", "-mindepth", "4"),
    ]
    for query in queries:
        expected = run("find", "tree", *query, cwd=tree.parent).stdout.split("\n")
        assert sorted(run("find", "tree", *query, cwd=mnt).stdout.split("\n")) == sorted(expected)


# Sparse files


@both_transports
def test_a_sparse_file_costs_only_its_data(mnt: Path) -> None:
    run("truncate", "-s", "1T", mnt / "huge")
    run("dd", "if=/dev/zero", f"of={mnt}/one", "bs=1", "count=1", "seek=1G", "status=none")
    assert (mnt / "huge").stat().st_blocks == 0
    assert (mnt / "one").stat().st_blocks * 512 == PAGE
    assert run("du", "-s", "--block-size=1", mnt).stdout.split()[0] == str(PAGE)


def test_cp_sparse_always_makes_holes_of_zeros(mnt: Path, tmp_path: Path) -> None:
    source = tmp_path / "zeros"
    with source.open("wb") as file:
        file.write(bytes(16 << 20))
        file.seek(7 << 20)
        file.write(b"x" * PAGE)
    run("cp", "--sparse=always", source, mnt / "sparse")
    run("cp", "--sparse=never", source, mnt / "full")
    run("cp", "--sparse=always", mnt / "full", mnt / "sparse again")
    for name in ("full", "sparse", "sparse again"):
        run("cmp", source, mnt / name)
    assert (mnt / "full").stat().st_blocks * 512 == 16 << 20
    for name in ("sparse", "sparse again"):
        assert (mnt / name).stat().st_blocks * 512 <= 1 << 20


# Attributes and sizes


@both_transports
def test_setfattr_and_getfattr_keep_attributes(volume: Volume, tmp_path: Path) -> None:
    mnt = volume.mount()
    (mnt / "file").touch()
    (mnt / "directory").mkdir()
    run("setfattr", "-n", "user.text", "-v", "some text", mnt / "file")
    run("setfattr", "-n", "user.binary", "-v", "0x00ff1000", mnt / "file")
    run("setfattr", "-n", "user.empty", mnt / "directory")
    run("setfattr", "-n", "user.gone", "-v", "soon", mnt / "file")
    run("setfattr", "-x", "user.gone", mnt / "file")
    volume.remount()
    shown = run("getfattr", "-d", "-e", "hex", "file", "directory", cwd=mnt).stdout
    assert "user.text=0x736f6d652074657874" in shown
    assert "user.binary=0x00ff1000" in shown
    assert "user.empty" in shown
    assert "user.gone" not in shown
    dump = tmp_path / "dump"
    dump.write_text(shown)
    for name, attribute in (("file", "text"), ("file", "binary"), ("directory", "empty")):
        run("setfattr", "-x", f"user.{attribute}", mnt / name)
    assert run("getfattr", "-d", "file", "directory", cwd=mnt).stdout == ""
    run("setfattr", f"--restore={dump}", cwd=mnt)
    assert run("getfattr", "-d", "-e", "hex", "file", "directory", cwd=mnt).stdout == shown


@both_transports
def test_setfacl_and_getfacl_keep_and_inherit_acls(volume: Volume) -> None:
    mnt = volume.mount()
    (mnt / "shared").mkdir()
    run("setfacl", "-m", "u:1234:rwx,d:u:1234:rwx,d:o::-", mnt / "shared")
    (mnt / "shared" / "file").touch()
    volume.remount()
    shown = run("getfacl", "-n", "--omit-header", "shared/file", cwd=mnt).stdout.splitlines()
    assert any(line.startswith("user:1234:rwx") for line in shown)
    assert "other::---" in shown


def test_du_agrees_with_the_attributes(mnt: Path, tree: Path) -> None:
    run("cp", "-a", tree, mnt)
    for path in sorted((mnt / "tree").glob("of-*")):
        disk, apparent = (
            int(run("du", "--block-size=1", *flags, path).stdout.split()[0])
            for flags in ([], ["--apparent-size"])
        )
        assert disk == int(os.getxattr(path, "user.mapfs.file.allocated"))
        assert apparent == int(os.getxattr(path, "user.mapfs.file.bytes"))
        assert disk - apparent == int(os.getxattr(path, "user.mapfs.file.slack"))
    total = int(run("du", "-s", "--block-size=1", mnt).stdout.split()[0])
    assert total == int(os.getxattr(mnt, "user.mapfs.dir.rallocated"))


# Programs


@both_transports
def test_git_clones_commits_collects_garbage_and_checks(volume: Volume, tmp_path: Path) -> None:
    mnt, origin = volume.mount(), tmp_path / "origin"
    identity = ("-c", "user.name=A Tester", "-c", "user.email=tester@example.org")
    git = ("git", *identity, "-c", "gc.auto=0")
    run(*git, "init", "-q", "-b", "main", origin)
    run("cp", "-r", Path(json.__file__).parents[1] / "json", origin / "json")
    for number in range(3):
        (origin / "change").write_text(f"{number}\n" * 1000)
        run(*git, "-C", origin, "add", ".")
        run(*git, "-C", origin, "commit", "-q", "-m", f"change {number}")
    clone = mnt / "clone"
    run(*git, "clone", "-q", f"file://{origin}", clone)
    assert run(*git, "-C", clone, "status", "--porcelain").stdout == ""
    run(*git, "-C", clone, "fsck", "--full", "--strict")
    (clone / "json" / "new.py").write_text("new = True\n")
    (clone / "change").unlink()
    run(*git, "-C", clone, "add", "-A")
    run(*git, "-C", clone, "commit", "-q", "-m", "on the mount")
    run(*git, "-C", clone, "checkout", "-q", "HEAD~2")
    run(*git, "-C", clone, "checkout", "-q", "main")
    run(*git, "-C", clone, "gc", "-q", "--prune=now")
    volume.remount()
    assert run(*git, "-C", clone, "status", "--porcelain").stdout == ""
    run(*git, "-C", clone, "fsck", "--full", "--strict")
    run(*git, "-C", clone, "push", "-q", "origin", "main:pushed")
    assert run(*git, "-C", origin, "log", "-1", "--format=%s", "pushed").stdout == "on the mount\n"


_INSERT = """
import sqlite3, sys
path, who = sys.argv[1:]
database = sqlite3.connect(path, timeout=60)
for number in range(150):
    with database:
        database.execute("INSERT INTO log VALUES (?, ?, ?)", (who, number, "x" * number))
database.close()
"""


@both_transports
def test_sqlite_in_wal_mode_serves_two_writers(volume: Volume) -> None:
    mnt = volume.mount()
    path = mnt / "data.db"
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)
    database.execute("CREATE TABLE log (who, number, text)")
    with (
        process([sys.executable, "-c", _INSERT, path, "first"]) as first,
        process([sys.executable, "-c", _INSERT, path, "second"]) as second,
    ):
        assert first.wait(timeout=100) == 0
        assert second.wait(timeout=100) == 0
        rows = database.execute("SELECT who, count(*), sum(number) FROM log GROUP BY who")
        assert rows.fetchall() == [("first", 150, 11175), ("second", 150, 11175)]
    assert run("sqlite3", path, "PRAGMA integrity_check").stdout == "ok\n"
    database.close()
    volume.remount()
    assert run("sqlite3", path, "SELECT count(*) FROM log").stdout == "300\n"
    assert run("sqlite3", path, "PRAGMA integrity_check").stdout == "ok\n"


@both_transports
def test_sqlite_reads_a_database_through_a_mapping(mnt: Path) -> None:
    script = (
        "PRAGMA mmap_size=268435456; CREATE TABLE numbers (n INTEGER PRIMARY KEY, square, text);"
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 20000)"
        " INSERT INTO numbers SELECT n, n * n, hex(randomblob(50)) FROM c;"
        "CREATE INDEX squares ON numbers (square); DELETE FROM numbers WHERE n % 3 = 0; VACUUM;"
        "PRAGMA integrity_check; SELECT count(*), sum(square) FROM numbers;"
    )
    expected = sum(n * n for n in range(1, 20001) if n % 3)
    shown = run("sqlite3", mnt / "data.db", script).stdout.split()
    assert shown[-2:] == ["ok", f"13334|{expected}"]


_PROGRAM = """
#include <stdio.h>
int twice(int number);
int main(void) { printf("%d\\n", twice(ANSWER)); return 0; }
"""
_LIBRARY = "int twice(int number) { return 2 * number; }\n"
_MAKEFILE = """
program: main.o libtwice.so
\tgcc -o $@ main.o -L. -ltwice -Wl,-rpath,'$$ORIGIN'
main.o: main.c answer.h
\tgcc -include answer.h -c main.c
libtwice.so: twice.c
\tgcc -shared -fPIC -o $@ twice.c
"""


@both_transports
def test_a_program_is_built_by_make_and_runs_from_the_mount(volume: Volume) -> None:
    mnt = volume.mount()
    (mnt / "main.c").write_text(_PROGRAM)
    (mnt / "twice.c").write_text(_LIBRARY)
    (mnt / "answer.h").write_text("#define ANSWER 21\n")
    (mnt / "Makefile").write_text(_MAKEFILE)
    built = run("make", "-j2", cwd=mnt).stdout
    assert built.count("gcc") == 3
    assert run(mnt / "program").stdout == "42\n"
    assert "up to date" in run("make", cwd=mnt).stdout
    (mnt / "answer.h").write_text("#define ANSWER 50\n")
    assert run("make", cwd=mnt).stdout.count("gcc") == 2
    assert run(mnt / "program").stdout == "100\n"
    volume.remount()
    assert run(mnt / "program").stdout == "100\n"
    assert "up to date" in run("make", cwd=mnt).stdout


def test_a_running_program_cannot_be_overwritten(mnt: Path) -> None:
    run("cp", shutil.which("sleep") or "sleep", mnt / "sleep")
    with process([mnt / "sleep", "60"]) as sleep:
        with pytest.raises(OSError, match="Text file busy"):
            (mnt / "sleep").open("r+b")
        (mnt / "sleep").unlink()
        assert sleep.poll() is None
        sleep.send_signal(signal.SIGTERM)
        sleep.wait()


# Data under load


@pytest.mark.parametrize(
    "engine",
    [
        ["--ioengine=sync"],
        ["--ioengine=sync", "--fsync=64"],
        ["--ioengine=mmap"],
        ["--ioengine=libaio", "--iodepth=16"],
        ["--ioengine=libaio", "--iodepth=16", "--direct=1"],
    ],
    ids=["sync", "sync-fsync", "mmap", "libaio", "libaio-direct"],
)
def test_fio_reads_back_what_it_wrote(volume: Volume, engine: list[str], tmp_path: Path) -> None:
    mnt = volume.mount()
    job = [
        "fio",
        "--name=verify",
        f"--directory={mnt}",
        "--size=4M",
        "--bs=4k",
        "--numjobs=2",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--fallocate=none",
        *engine,
    ]
    run(*job, "--rw=randrw", cwd=tmp_path)
    run(*job, "--rw=randwrite", cwd=tmp_path)
    volume.remount()
    run(*job, "--rw=randwrite", "--verify_only", cwd=tmp_path)


# Locks


def test_flock_keeps_a_second_process_out_until_the_first_ends(mnt: Path) -> None:
    lock = mnt / "lock"
    with process(["flock", lock, "-c", "echo held; read line"]) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        run("flock", "--nonblock", lock, "true", status=1)
        run("flock", "--shared", "--nonblock", lock, "true", status=1)
    run("flock", "--nonblock", lock, "true")


_LOCK_RECORD = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
fcntl.lockf(file, fcntl.LOCK_EX, 100, 50)
print("held", flush=True)
sys.stdin.readline()
"""


@both_transports
def test_record_locks_exclude_only_the_bytes_they_cover(mnt: Path) -> None:
    path = mnt / "records"
    path.write_bytes(bytes(1000))
    attempt = (
        "import fcntl, sys; file = open(sys.argv[1], 'r+b');"
        "fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, int(sys.argv[2]))"
    )
    with process([sys.executable, "-c", _LOCK_RECORD, path]) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        run(sys.executable, "-c", attempt, path, 200)
        refused = run(sys.executable, "-c", attempt, path, 120, status=1)
        assert "BlockingIOError" in refused.stderr
    run(sys.executable, "-c", attempt, path, 120)


# Python's own tests

_PYTHON_TESTS = ("test_mmap", "test_os", "test_tempfile", "test_fileio")
# What one test says of itself: "test_name (test.test_os.Class.test_name) ... ok".
_OUTCOME = re.compile(
    r"^(test_\w+ \([\w.]+\)).*?\.\.\. (ok|FAIL|ERROR|skipped|expected failure)", re.MULTILINE
)


def _python_with_tests() -> str:
    for name in (sys.executable, "python3"):
        if subprocess.run([name, "-c", "import test.test_mmap"], check=False).returncode == 0:
            return name
    pytest.skip("no Python here comes with its tests")


def _outcomes(python: str, directory: Path) -> tuple[int, dict[str, str]]:
    directory.mkdir(exist_ok=True)
    done = subprocess.run(
        [python, "-m", "test", "-v", "--tempdir", directory, *_PYTHON_TESTS],
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        cwd=directory,
        env={**os.environ, "TMPDIR": str(directory)},
    )
    return done.returncode, dict(_OUTCOME.findall(done.stdout))


@pytest.mark.slow
def test_pythons_own_tests_come_out_as_on_the_host(mnt: Path, tmp_path: Path) -> None:
    python = _python_with_tests()
    expected_status, expected = _outcomes(python, tmp_path / "host")
    status, found = _outcomes(python, mnt / "temporary")
    assert len(expected) > 300
    assert {name: found.get(name) for name in expected if found.get(name) != expected[name]} == {}
    assert status == expected_status


@both_transports
def test_a_random_sequence_of_calls_leaves_the_same_bytes_as_on_the_host(
    volume: Volume, tmp_path: Path
) -> None:
    mnt = volume.mount()
    choose = random.Random(7)
    there, here = (mnt / "file").open("w+b"), (tmp_path / "file").open("w+b")
    with there, here:
        for _ in range(400):
            offset, size = choose.randrange(1 << 20), choose.choice([1, 100, 4096, 70_000])
            action = choose.choice(["write", "write", "write", "read", "truncate", "sync"])
            data = choose.randbytes(size)
            for file in (there, here):
                if action == "write":
                    os.pwrite(file.fileno(), data, offset)
                elif action == "truncate":
                    os.truncate(file.fileno(), offset)
                elif action == "sync":
                    os.fsync(file.fileno())
            assert os.pread(there.fileno(), size, offset) == os.pread(here.fileno(), size, offset)
    run("cmp", mnt / "file", tmp_path / "file")
    volume.remount()
    run("cmp", mnt / "file", tmp_path / "file")
