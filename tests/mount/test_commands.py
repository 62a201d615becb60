"""The verbs of the command that look at stores and mounts, and what every verb has in common."""

import json
import mmap
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from mapfs import __version__, cli
from mapfs.cli.stat import describe
from tests.conftest import MakeVolume
from tests.mount.volume import MAPFS, Volume, both_transports, mapfs, process, refusal, run
from tests.posix.as_user import ALICE, as_user

pytestmark = pytest.mark.mount

VERBS = (
    "mkfs",
    "mount",
    "umount",
    "control",
    "metrics",
    "top",
    "trace",
    "stat",
    "advise",
    "df",
    "fsck",
)


# stat


def test_stat_prints_what_stat_and_the_attributes_say(mnt: Path) -> None:
    path = mnt / "file"
    path.write_bytes(b"x" * 5120)
    path.chmod(0o640)
    rows = dict(line.split(maxsplit=1) for line in mapfs("stat", path).stdout.splitlines()[1:])
    found = path.stat()
    assert rows["type"] == "file"
    assert rows["mode"] == "0640"
    assert rows["inode"] == str(found.st_ino)
    assert rows["size"] == rows["file.bytes"] == "5120"
    assert rows["blocks"] == "16"
    assert rows["file.slack"] == "3072"
    assert rows["mtime"].startswith("20")


def test_stat_prints_json_for_scripts(mnt: Path) -> None:
    (mnt / "directory").mkdir()
    (mnt / "directory" / "file").write_bytes(b"x" * 7)
    (mnt / "link").symlink_to("file")
    os.mkfifo(mnt / "fifo")
    paths = [mnt, mnt / "directory", mnt / "directory" / "file", mnt / "link", mnt / "fifo"]
    described = json.loads(mapfs("stat", "--json", *paths).stdout)
    assert [each["path"] for each in described] == [str(path) for path in paths]
    kinds = ["directory", "directory", "file", "symlink", "fifo"]
    assert [each["type"] for each in described] == kinds
    root, directory, file, link, fifo = described
    fs = json.loads(os.getxattr(mnt, "user.mapfs.fs.json"))
    assert {**root["fs"], "page_table_bytes": 0} == {**fs, "page_table_bytes": 0}
    assert directory["dir"]["rslack"] == file["file"]["slack"] == 4089
    assert directory["links"] == 2
    assert {"file", "dir", "fs"}.isdisjoint(link.keys() | fifo.keys())
    for path, each in zip(paths, described, strict=True):
        found = path.lstat()
        assert (each["size"], each["uid"], each["gid"]) == (
            found.st_size,
            found.st_uid,
            found.st_gid,
        )


def test_stat_shows_what_is_in_memory_twice(mnt: Path) -> None:
    path = mnt / "file"
    path.write_bytes(b"x" * 10_000)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        path.read_bytes()
        (described,) = json.loads(mapfs("stat", "--json", path).stdout)
        assert described["kernel"] == {"resident": 12_288, "dirty": 0}
        assert described["file"]["resident"] == 12_288
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    (described,) = json.loads(mapfs("stat", "--json", path).stdout)
    assert described["kernel"]["resident"] == 0
    assert described["file"]["resident"] == 12_288
    with path.open("r+b", buffering=0) as file:
        file.write(b"y")
        (described,) = json.loads(mapfs("stat", "--json", path).stdout)
        assert described["kernel"]["dirty"] in (0, 4096)  # the kernel may have written it back
    (mnt / "empty").touch()
    (described,) = json.loads(mapfs("stat", "--json", mnt / "empty").stdout)
    assert described["kernel"] == {"resident": 0, "dirty": 0}


def test_stat_lists_extents(mnt: Path) -> None:
    path = mnt / "file"
    with path.open("wb", buffering=0) as file:
        for page in (1, 3):
            os.pwrite(file.fileno(), b"x", page * 4096)
        os.fsync(file.fileno())
    (described,) = json.loads(mapfs("stat", "--extents", "--json", path).stdout)
    extents = described["extents"]
    assert [(each["offset"], each["length"]) for each in extents] == [(4096, 4096), (12_288, 4096)]
    shown = mapfs("stat", "--extents", path).stdout
    assert f"12288: 4096 bytes at {extents[1]['store_offset']} of the store" in shown
    assert "extents" not in json.loads(mapfs("stat", "--json", path).stdout)[0]
    assert "extents" not in json.loads(mapfs("stat", "--extents", "--json", mnt).stdout)[0]


@pytest.mark.root
@both_transports
def test_what_is_in_memory_is_the_same_for_every_user(
    forgetful_host: None, open_directory: Path, make_volume: MakeVolume
) -> None:
    volume = make_volume(directory=open_directory)
    volume.mkfs()
    path = volume.mount("--allow-other") / "file"
    path.write_bytes(b"x" * (1 << 20))
    with path.open("rb") as file:
        os.fsync(file.fileno())
    os.setxattr(path, "user.mapfs.advice", b"dontneed")  # and then bring a part in again
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    with mmap.mmap(-1, 64 << 10) as aligned:
        os.setxattr(path, "user.mapfs.advice", b"random")
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.preadv(fd, [aligned], 0) == 64 << 10
    os.close(fd)
    names = ("user.mapfs.file.resident", "user.mapfs.file.dirty")
    mine = [os.getxattr(path, name) for name in names]
    assert mine == [b"65536", b"0"]
    assert "kernel" in describe(path)

    def ask() -> None:
        assert [os.getxattr(path, name) for name in names] == mine
        with pytest.raises(PermissionError):
            os.close(os.open(path, os.O_RDWR))
        described = describe(path)
        assert described["file"]["resident"] == 64 << 10
        assert "kernel" not in described  # it would not tell, or mincore(2) would lie

    as_user(ALICE, ask)
    os.chown(path, ALICE.uid, ALICE.gid)
    as_user(ALICE, lambda: describe(path)["kernel"])


def test_stat_goes_on_after_a_path_that_fails(mnt: Path, tmp_path: Path) -> None:
    (mnt / "file").write_bytes(b"x")
    (tmp_path / "elsewhere").touch()
    done = mapfs("stat", mnt / "missing", tmp_path / "elsewhere", mnt / "file", status=1)
    assert done.stderr.splitlines() == [
        f"mapfs: {mnt / 'missing'}: No such file or directory",
        f"mapfs: {tmp_path / 'elsewhere'}: not on a mapfs",
    ]
    assert "file.slack" in done.stdout


def test_names_do_nothing_to_the_terminal_that_they_are_printed_on(mnt: Path) -> None:
    path = mnt / "red\x1b[31m\n"
    shown = f"{mnt}/red\\x1b[31m\\n"
    said = refusal(mapfs("stat", path, status=1))
    assert said == f"mapfs: {shown}: No such file or directory"
    assert refusal(mapfs("slack", path, status=1)) == said
    path.touch()
    assert mapfs("stat", path).stdout.splitlines()[0] == shown
    assert mapfs("advise", path).stdout == f"normal      {shown}\n"


@pytest.mark.root
def test_what_may_not_be_looked_at_is_named_as_it_was_given(
    open_directory: Path, make_volume: MakeVolume, capfd: pytest.CaptureFixture[str]
) -> None:
    volume = make_volume(directory=open_directory)
    volume.mkfs()

    def refused(verb: str, path: Path, status: int) -> None:
        words = [verb, str(path)]
        cli.run(cli.mapfs, words)  # brings in the modules, which others may not be able to read
        capfd.readouterr()

        def ask() -> None:
            assert cli.run(cli.mapfs, words) == status

        as_user(ALICE, ask)
        assert capfd.readouterr() == ("", f"mapfs: {path}: Permission denied\n")

    refused("slack", volume.store, 1)
    refused("fsck", volume.store, 8)
    refused("slack", volume.mount(), 1)  # of root alone


def test_the_values_of_stat_stand_in_one_column(mnt: Path) -> None:
    (mnt / "file").write_bytes(b"x")
    for path in (mnt, mnt / "file"):
        first, *lines = mapfs("stat", "--extents", path).stdout.splitlines()
        assert first == str(path)
        assert {line[:26].rstrip().count(" ") for line in lines} == {2}
        assert all(line[25] == " " != line[26] for line in lines)


# df


def test_df_says_the_same_of_a_mount_of_its_store_and_of_the_store_at_rest(volume: Volume) -> None:
    mnt = volume.mount()
    (mnt / "file").write_bytes(b"x" * 5120)
    os.sync()
    (from_mount,) = json.loads(mapfs("df", "--json", mnt).stdout)
    (from_store,) = json.loads(mapfs("df", "--json", volume.store).stdout)
    volume.umount()
    (at_rest,) = json.loads(mapfs("df", "--json", volume.store).stdout)
    assert from_mount.pop("path") == str(mnt)
    assert from_store.pop("path") == at_rest.pop("path") == str(volume.store)
    assert from_mount == from_store
    for key in ("stored_bytes", "slack_bytes", "metadata_bytes", "free_bytes", "store_bytes"):
        assert at_rest[key] == from_mount[key], key
    assert at_rest["stored_bytes"] == 5120
    assert at_rest["slack_tail_bytes"] == 3072


def test_df_prints_parts_that_add_up(volume: Volume) -> None:
    mnt = volume.mount()
    (mnt / "file").write_bytes(b"x" * 5120)
    for path in (mnt, volume.store):
        rows = mapfs("df", path).stdout.splitlines()
        assert rows[0].strip() == str(path)
        values = {
            row[:22].strip(): int(row[22:].split()[1]) for row in rows[2:] if len(row.split()) > 2
        }
        parts = ("stored", "slack: tails", "slack: preallocated", "metadata", "free")
        assert sum(values[part] for part in parts) == values["store"]
        assert (values["stored"], values["slack: tails"]) == (5120, 3072)
        assert values["may grow to"] == 8 << 30


def _listed_by_df() -> list[str]:
    """Other tests may have dead mounts, which are named and passed over."""
    command = [str(MAPFS), "df", "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return [each["path"] for each in json.loads(done.stdout or "[]")]


def test_df_without_a_path_lists_what_is_mounted(volume: Volume) -> None:
    assert str(volume.mnt) not in _listed_by_df()
    volume.mount()
    assert str(volume.mnt) in _listed_by_df()


def test_df_goes_on_behind_a_mount_that_is_dead(volume: Volume, make_volume: MakeVolume) -> None:
    volume.mount()
    dead = make_volume("dead")
    dead.mkfs()
    dead.mount()
    for pid in dead.daemons:
        os.kill(pid, signal.SIGKILL)
    dead.wait_for_end()
    done = mapfs("df", dead.mnt, volume.mnt, status=1)
    assert str(dead.mnt) in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout.startswith(f"{volume.mnt}\n")


def test_df_of_what_is_neither_mount_nor_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file", tmp_path / "missing"):
        assert str(path) in refusal(mapfs("df", path, status=1))


# fsck


def damage(catalog: Path, table: str, change: Callable[[dict[bytes, bytes]], None]) -> None:
    """Change the records of one table of a catalog."""
    with lmdb.open(str(catalog), subdir=False, max_dbs=16, map_size=1 << 30) as environment:
        database = environment.open_db(table.encode(), create=False)
        with environment.begin(write=True, db=database) as transaction:
            records = {bytes(key): bytes(value) for key, value in transaction.cursor()}
            assert records, f"table {table} is empty"
            changed = dict(records)
            change(changed)
            for key in records.keys() - changed.keys():
                transaction.delete(key)
            for key, value in changed.items():
                transaction.put(key, value)


def drop_first(records: dict[bytes, bytes]) -> None:
    """A record is lost."""
    del records[min(records)]


def cut_last(records: dict[bytes, bytes]) -> None:
    """A record lacks its last byte."""
    key = max(records)
    records[key] = records[key][:-1]


@pytest.fixture
def at_rest(volume: Volume) -> Volume:
    """A store with a record in most tables, which is not mounted."""
    mnt = volume.mount()
    (mnt / "directory").mkdir()
    (mnt / "directory" / "file").write_bytes(b"x" * 5120)
    os.link(mnt / "directory" / "file", mnt / "second name")
    volume.umount()
    return volume


TABLES = ("inodes", "entries", "cookies", "links", "extents", "free")


@pytest.mark.parametrize("change", [drop_first, cut_last])
def test_fsck_finds_a_damaged_record_in_any_table(
    at_rest: Volume, change: Callable[[dict[bytes, bytes]], None]
) -> None:
    store, catalog = at_rest.store, at_rest.store / "catalog"
    good = catalog.read_bytes()
    for table in TABLES:
        damage(catalog, table, change)
        done = mapfs("fsck", store, status=4)
        assert done.stderr == ""
        *findings, summary = done.stdout.splitlines()
        assert summary == f"{store}: {len(findings)} errors"
        assert findings
        catalog.write_bytes(good)


def test_fsck_prints_its_findings_as_json(at_rest: Volume) -> None:
    store, catalog = at_rest.store, at_rest.store / "catalog"
    good = catalog.read_bytes()
    assert mapfs("fsck", store).stdout == f"{store}: clean\n"
    assert json.loads(mapfs("fsck", "--json", store).stdout) == []
    damage(catalog, "free_by_size", drop_first)
    findings = mapfs("fsck", store, status=4).stdout.splitlines()[:-1]
    listed = json.loads(mapfs("fsck", "--json", store, status=4).stdout)
    assert [f"{each['invariant']}: {each['message']}" for each in listed] == findings
    catalog.write_bytes(good)


def test_fsck_changes_nothing(volume: Volume) -> None:
    mnt = volume.mount()
    (mnt / "file").write_bytes(b"x" * 5120)
    volume.umount()
    before = {path: path.read_bytes() for path in volume.store.iterdir()}
    volume.fsck()
    assert {path: path.read_bytes() for path in volume.store.iterdir()} == before


def test_fsck_of_what_cannot_be_checked_exits_with_8(volume: Volume, tmp_path: Path) -> None:
    assert "no such store" in refusal(mapfs("fsck", tmp_path / "missing", status=8))
    volume.mount()
    assert "in use" in refusal(mapfs("fsck", volume.store, status=8))


# mkfs


def test_mkfs_overwrites_nothing_unless_forced(volume: Volume, tmp_path: Path) -> None:
    mnt = volume.mount()
    (mnt / "file").write_text("kept")
    volume.umount()
    assert "--force" in refusal(mapfs("mkfs", volume.store, "--size", "1G", status=1))
    volume.mount()
    assert (mnt / "file").read_text() == "kept"
    volume.umount()
    mapfs("mkfs", "--force", volume.store, "--size", "1G")
    volume.mount()
    assert os.listdir(mnt) == []


def test_mkfs_never_touches_what_is_no_store(tmp_path: Path) -> None:
    directory, file, backing = tmp_path / "directory", tmp_path / "file", tmp_path / "backing"
    directory.mkdir()
    (directory / "mine").write_text("kept")
    file.write_text("kept")
    backing.write_text("kept")
    for path in (directory, file):
        for force in ([], ["--force"]):
            refusal(mapfs("mkfs", *force, path, "--size", "1G", status=1))
    new = tmp_path / "new.mapfs"
    refusal(mapfs("mkfs", new, "--size", "1G", "--backing", backing, status=1))
    refusal(mapfs("mkfs", tmp_path / "no" / "such" / "new.mapfs", "--size", "1G", status=1))
    assert not new.exists()
    assert {(directory / "mine").read_text(), file.read_text(), backing.read_text()} == {"kept"}


def test_mkfs_without_a_size_may_grow_to_what_the_host_has_free(make_volume: MakeVolume) -> None:
    volume = make_volume()
    mapfs("mkfs", volume.store)
    host = os.statvfs(volume.store)
    limit = json.loads(mapfs("df", "--json", volume.store).stdout)[0]["limit_bytes"]
    assert 0 < limit <= host.f_blocks * host.f_frsize


@pytest.mark.parametrize(
    ("text", "size"), [("67108864", 64 << 20), ("64M", 64 << 20), ("1.5g", 1536 << 20)]
)
def test_sizes_are_written_in_bytes_or_with_a_suffix(
    make_volume: MakeVolume, text: str, size: int
) -> None:
    volume = make_volume()
    volume.mkfs("--size", text)
    assert json.loads(mapfs("df", "--json", volume.store).stdout)[0]["limit_bytes"] == size


@pytest.mark.parametrize(
    "options",
    [
        ["--size", "much"],
        ["--size", "10X"],
        ["--size", "-1"],
        ["--size", ""],
        ["--size", "1000"],
        ["--size", "0"],
        ["--size", "8192P"],
        ["--size", "99999999999999999999P"],
        ["--size", "9" * 400 + "P"],
        ["--size", "1G", "--page-size", "5000"],
        ["--size", "1G", "--page-size", "1K"],
        ["--size", "1G", "--page-size", "0"],
        ["--size", "1G", "--page-size", "1G"],
    ],
    ids=" ".join,
)
def test_a_size_that_cannot_be_is_a_usage_error(tmp_path: Path, options: list[str]) -> None:
    done = mapfs("mkfs", tmp_path / "new.mapfs", *options, status=2)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "new.mapfs").exists()


def test_a_store_survives_being_made_anew_with_a_size_that_cannot_be(volume: Volume) -> None:
    (volume.mount() / "file").write_text("kept")
    volume.umount()
    for size in ("8192P", "99999999999999999999P", "1000"):
        refusal(mapfs("mkfs", "--force", volume.store, "--size", size, status=2))
    assert (volume.mount() / "file").read_text() == "kept"


def test_names_that_are_not_utf_8_are_served_and_shown(make_volume: MakeVolume) -> None:
    volume = make_volume()
    volume.store = volume.store.with_name(os.fsdecode(b"\xff\x1b[31m.mapfs"))
    done = mapfs("mkfs", volume.store, "--size", "64M")
    assert "\\xff\\x1b[31m.mapfs: up to 64.0M" in done.stdout
    (volume.mount() / "file").write_text("kept")
    volume.remount()
    assert (volume.mnt / "file").read_text() == "kept"
    volume.umount()
    missing = volume.store.with_name(os.fsdecode(b"\xfe"))
    assert "\\xfe: no such store" in refusal(mapfs("mount", missing, volume.mnt, status=1))


# Every verb


def test_the_command_names_its_verbs_and_its_version() -> None:
    shown = mapfs("--help").stdout
    for verb in VERBS:
        assert f"  {verb} " in shown
    assert "..." not in shown.partition("Commands:")[2], "a summary is too long"
    assert mapfs("--version").stdout == f"mapfs, version {__version__}\n"
    assert "Usage: mapfs" in mapfs(status=2).stderr
    for words in (["nonsense"], ["--nonsense"]):
        assert refusal(mapfs(*words, status=2)).endswith("(see mapfs --help)")
    assert refusal(mapfs("imprt", "data", "mnt", "more", status=2)) == (
        "mapfs: No such command 'imprt' (see mapfs --help)"
    )


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(verb: str) -> None:
    shown = mapfs(verb, "--help").stdout
    assert shown == mapfs(verb, "-h").stdout
    assert f"Usage: mapfs {verb}" in shown
    assert shown.count(f"mapfs {verb} ") >= 2
    assert refusal(mapfs(verb, "--nonsense", status=2)).endswith(f"(see mapfs {verb} --help)")


@pytest.mark.parametrize("verb", ["mkfs", "mount", "umount", "stat", "fsck"])
def test_a_verb_without_its_argument_is_a_usage_error(verb: str) -> None:
    assert "Missing argument" in refusal(mapfs(verb, status=2))


def test_mount_takes_two_paths_or_ephemeral_and_one(volume: Volume) -> None:
    for words in ([volume.mnt], [volume.store, volume.mnt, volume.mnt]):
        refusal(mapfs("mount", *words, status=2))
    refusal(mapfs("mount", "--ephemeral", "1G", volume.store, volume.mnt, status=2))
    refusal(mapfs("mount", "--ephemeral", "1", volume.mnt, status=2))
    assert not volume.mounted


def test_it_runs_as_a_module_too(volume: Volume) -> None:
    python = MAPFS.with_name("python")
    assert run(python, "-m", "mapfs", "fsck", volume.store).stdout.endswith("clean\n")


def test_a_reader_that_goes_away_is_no_error_to_show(mnt: Path) -> None:
    for number in range(300):
        (mnt / f"{number}").touch()
    with process([MAPFS, "stat", *mnt.iterdir()], stderr=subprocess.PIPE) as stat:
        assert stat.stdout is not None
        assert stat.stderr is not None
        stat.stdout.close()
        assert stat.stderr.read() == ""
