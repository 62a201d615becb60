"""`mapfs import` and `mapfs export` as they are run: pipes, mounts, signals, full disks, names."""

import errno
import json
import os
import pty
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import MakeVolume
from tests.mount.terminal import in_terminal
from tests.mount.tree import describe, make_tree
from tests.mount.volume import MAPFS, Volume, both_transports, mapfs, refusal, run, wait_until

pytestmark = pytest.mark.mount


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with everything that a copy has to keep; not to be changed."""
    top = tmp_path_factory.mktemp("tree") / "top"
    make_tree(top)
    return top


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where to export to; not there yet."""
    return tmp_path / "out"


# What goes where


def test_a_store_is_filled_and_emptied_without_a_mount(
    volume: Volume, tree: Path, out: Path
) -> None:
    done = mapfs("import", tree, volume.store)
    assert done.stderr == ""
    assert done.stdout.startswith(f"{volume.store}: ")
    mnt = volume.mount()
    assert describe(mnt / "top") == describe(tree)
    volume.umount()
    mapfs("export", f"{volume.store}:top", out)
    assert describe(out / "top") == describe(tree)
    mapfs("export", f"{volume.store}:top/", out / "contents")
    assert describe(out / "contents") == describe(tree)


@pytest.mark.parametrize("source_of", ["store", "mount"])
def test_links_in_a_path_are_not_followed(
    volume: Volume, tmp_path: Path, out: Path, source_of: str
) -> None:
    source = tmp_path / "source"
    (source / "real" / "in").mkdir(parents=True)
    (source / "real" / "in" / "file").write_text("x")
    (source / "link").symlink_to("real")
    (source / "etc").symlink_to("/etc")
    (source / "last").symlink_to("real/in/file")
    mapfs("import", f"{source}/", volume.store)
    base = volume.mount() if source_of == "mount" else volume.store
    for path in (
        "link/in",
        "link/",
        "link/.",
        "link/in/",
        "etc/hostname",
        "last/",
        "real/in/file/",
    ):
        said = refusal(mapfs("export", f"{base}:{path}", out, status=1))
        reason = "it leads through what is no directory (links are not followed)"
        assert said == f"mapfs: {base}:{path}: {reason}"
    for path in ("missing", "missing/below", "real/missing"):
        said = refusal(mapfs("export", f"{base}:{path}", out, status=1))
        assert said == f"mapfs: {base}:{path}: no such entry"
    assert not os.listdir(out)
    for path in ("link", "last", "real//in", "./real/in/./file"):
        mapfs("export", f"{base}:{path}", out)
    assert os.readlink(out / "link") == "real"
    assert os.readlink(out / "last") == "real/in/file"
    assert (out / "in" / "file").read_text() == (out / "file").read_text() == "x"


def test_a_mount_that_may_not_be_written_is_one_fault_in_one_line(
    volume: Volume, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    (source / "directory" / "below").mkdir(parents=True)
    (source / "directory" / "file").write_text("x")
    mapfs("import", source, volume.store)
    mnt = volume.mount("--read-only")
    mapfs("import", source, mnt)  # all of it is there
    (source / "directory").touch()
    source.touch()
    expected = "Read-only file system"
    assert refusal(mapfs("import", source, mnt, status=1)) == f"mapfs: {mnt}: {expected}"
    (source / "directory" / "file").write_text("other")
    assert refusal(mapfs("import", source, mnt, status=1)) == f"mapfs: {mnt}: {expected}"
    place = f"{mnt}:new"
    assert refusal(mapfs("import", source, place, status=1)) == f"mapfs: {place}: {expected}"


@both_transports
def test_a_mount_is_filled_and_emptied(volume: Volume, tree: Path, out: Path) -> None:
    mnt = volume.mount()
    mapfs("import", f"{tree}/", f"{mnt}:a/b")
    assert describe(mnt / "a" / "b") == describe(tree)
    mapfs("export", f"{mnt}:a/b/", out)
    assert describe(out) == describe(tree)
    summary = json.loads(mapfs("import", "--json", f"{tree}/", f"{mnt / 'a' / 'b'}").stdout)
    assert (summary["copied"], summary["failures"]) == (0, [])
    assert not list(mnt.rglob(".mapfs-partial*"))


def test_the_store_of_a_mount_is_reached_through_the_mount(
    volume: Volume, tree: Path, out: Path
) -> None:
    mnt = volume.mount()
    mapfs("import", tree, f"{volume.store}:below")
    assert describe(mnt / "below" / "top") == describe(tree)
    mapfs("export", f"{volume.store}:below/top/", out)
    assert describe(out) == describe(tree)


def test_names_may_have_colons(make_volume: MakeVolume, tmp_path: Path, out: Path) -> None:
    volume = make_volume("with:colon")
    volume.mkfs()
    (tmp_path / "file").write_text("x")
    (tmp_path / "with").write_text("no store, and shorter than the one that is meant")
    mapfs("import", tmp_path / "file", f"{volume.store}:a:b/c:d")
    mapfs("export", f"{volume.store}:a:b/c:d/file", out)
    assert (out / "file").read_text() == "x"
    mapfs("import", tmp_path / "file", f"{volume.store}:")
    mapfs("export", f"{volume.store}:/", out)
    assert sorted(os.listdir(out)) == ["a:b", "file"]


def test_places_that_cannot_be_are_refused_in_one_line(volume: Volume, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in ("missing.mapfs", f"{tmp_path}/missing:x", tmp_path / "file"):
        refusal(mapfs("import", tmp_path / "file", place, status=1))
    refusal(mapfs("export", tmp_path, tmp_path / "out", status=1))
    refusal(mapfs("export", f"{volume.store}:missing", tmp_path / "out", status=1))
    refusal(mapfs("import", tmp_path / "file", f"{volume.store}:../x", status=2))
    mapfs("import", tmp_path / "file", volume.store)
    refusal(mapfs("import", tmp_path / "file", f"{volume.store}:file", status=1))
    refusal(mapfs("export", volume.store, tmp_path / "no" / "directory.tar", status=1))
    said = refusal(mapfs("export", volume.store, tmp_path / "file", status=1))
    assert said == f"mapfs: {tmp_path}/file: Not a directory"


def test_nothing_is_exported_into_a_store_itself(volume: Volume, make_volume: MakeVolume) -> None:
    other = make_volume(name="other")
    other.mkfs("--size", "16M")
    for target in (volume.store, other.store):
        before = sorted(target.iterdir())
        assert "mount it" in refusal(mapfs("export", volume.store, target, status=2))
        assert sorted(target.iterdir()) == before


def test_nothing_beside_the_mount_is_exported(volume: Volume, tmp_path: Path) -> None:
    for _ in range(2):  # at rest, and mounted
        for path in ("..", "a/../..", "/../"):
            said = refusal(mapfs("export", f"{volume.store}:{path}", tmp_path / "out", status=2))
            assert said.endswith("PATH must not have .. in it")
        if not volume.mounted:
            volume.mount()
    assert not (tmp_path / "out").exists()


def test_a_file_that_hides_its_size_is_told_and_not_copied_empty(volume: Volume) -> None:
    done = mapfs("import", "/proc/self/status", volume.store, status=1)
    assert done.stderr.startswith("mapfs: status: has contents but no size")
    assert done.stdout == f"{volume.store}: 0 copied (0), 1 failed\n"
    assert "no such entry" in mapfs("export", f"{volume.store}:status", "-", status=1).stderr


def test_what_is_missing_or_no_archive_is_told_and_the_rest_is_copied(
    volume: Volume, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "bad.tar").write_text("no archive")
    sources = [tmp_path / name for name in ("missing", "bad.tar", "file")]
    done = mapfs("import", *sources, volume.store, status=1)
    assert done.stderr.splitlines() == [
        f"mapfs: {tmp_path}/missing: No such file or directory",
        f"mapfs: {tmp_path}/bad.tar: only called like an archive",
    ]
    assert done.stdout == f"{volume.store}: 1 copied (1), 2 failed\n"
    mapfs("import", "--no-unpack", tmp_path / "bad.tar", volume.store)


def test_hard_links_between_what_is_named_are_kept(volume: Volume, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("x")
    os.link(tmp_path / "one", tmp_path / "two")
    mapfs("import", tmp_path / "one", tmp_path / "two", volume.store)
    mnt = volume.mount()
    assert os.path.samefile(mnt / "one", mnt / "two")


def test_names_are_printed_on_one_line_and_tame(volume: Volume, tmp_path: Path) -> None:
    archive = tmp_path / "evil.tar"
    with tarfile.open(archive, "w") as made:
        made.addfile(tarfile.TarInfo("../new\nline \x1b[31m"))
    done = mapfs("import", archive, volume.store, status=1)
    assert done.stderr == (
        "mapfs: ../new\\nline \\x1b[31m: refused: its path leads out of the directory\n"
    )


# Pipes


def test_tar_comes_in_on_a_pipe_and_goes_out_on_one(
    volume: Volume, tree: Path, tmp_path: Path, out: Path
) -> None:
    script = f"""set -eo pipefail
        tar -C {tree} --acls --xattrs --xattrs-include='*' --sparse --format=posix -cz . |
            {MAPFS} import - {volume.store}:a
        {MAPFS} export {volume.store}:a/ - | cat >{tmp_path}/tar
        cat {tmp_path}/tar | {MAPFS} import - {volume.store}:b
        {MAPFS} export {volume.store}:b - | tar t >{tmp_path}/list"""
    done = run("bash", "-c", script)
    assert "copied" in done.stdout
    names = (tmp_path / "list").read_text().splitlines()
    assert "b/of-7-bytes" in names
    mapfs("export", f"{volume.store}:b/", out)
    expected = describe(tree)
    del expected["socket"]  # tar has none
    assert describe(out) == expected


def test_an_archive_neither_comes_from_a_terminal_nor_goes_to_one(volume: Volume) -> None:
    leader, follower = pty.openpty()
    assert "terminal" in mapfs("import", "-", volume.store, status=2, stdin=follower).stderr
    os.close(follower)
    os.close(leader)
    assert "terminal" in in_terminal(["export", str(volume.store), "-"], status=2)


def test_a_reader_of_the_archive_that_goes_away_ends_it(volume: Volume, tree: Path) -> None:
    mapfs("import", tree, volume.store)
    done = run("bash", "-c", f"{MAPFS} export {volume.store} - | true; echo ${{PIPESTATUS[0]}}")
    assert done.stdout == "1\n"
    assert done.stderr == ""


def test_standard_input_that_is_no_archive(volume: Volume) -> None:
    for data in ("", "nonsense", "PK\3\4" + "x" * 1000):
        done = mapfs("import", "-", volume.store, status=1, input=data)
        assert done.stderr == "mapfs: -: not a tar archive\n"


# What it costs


def lookups(mnt: Path) -> float:
    lines = mapfs("metrics", mnt).stdout.splitlines()
    found = [line for line in lines if line.startswith('mapfs_requests_total{operation="lookup"}')]
    return float(found[0].split()[-1]) if found else 0


def test_a_new_file_is_looked_up_once(volume: Volume, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(100):
        (source / f"{number}").write_text("x")
    mnt = volume.mount()
    before = lookups(mnt)
    mapfs("import", source, mnt)
    assert 100 <= lookups(mnt) - before < 150


def test_importing_a_directory_into_a_mount_loads_neither_archives_nor_lmdb(
    volume: Volume, tmp_path: Path
) -> None:
    (tmp_path / "source").mkdir()
    mnt = volume.mount()
    program = "import sys; from mapfs.cli.import_ import command; "
    program += "command.main(sys.argv[1:], standalone_mode=False); print(*sys.modules)"
    done = run(sys.executable, "-c", program, tmp_path / "source", mnt)
    assert {"tarfile", "zipfile", "lzma", "lmdb"}.isdisjoint(done.stdout.split())
    assert (mnt / "source").is_dir()


# Interruptions


def large_tree(top: Path) -> Path:
    top.mkdir()
    for number in range(300):
        (top / f"{number:03}").write_bytes(bytes([number % 256]) * 20_000)
    (top / "huge").write_bytes(os.urandom(1 << 20) * 40)
    return top


def stopped(command: list[str], when: Callable[[], object], how: int) -> int:
    """Run a command, send it a signal when something is so; its exit code."""
    with subprocess.Popen(
        [str(MAPFS), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        wait_until(lambda: process.poll() is not None or when(), "the copy to be under way")
        process.send_signal(how)
        return process.wait()


def store_bytes(store: Path) -> int:
    return (store / "store").stat().st_blocks * 512


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_import_that_is_stopped_goes_on_when_it_is_run_again(
    volume: Volume, tmp_path: Path, out: Path, how: int
) -> None:
    source = large_tree(tmp_path / "source")
    for amount in (2 << 20, 20 << 20):
        code = stopped(
            ["import", f"{source}/", str(volume.store)],
            lambda amount=amount: store_bytes(volume.store) > amount,  # type: ignore[misc]
            how,
        )
        assert code in (0, 130, -how)
        volume.fsck()
        mapfs("export", volume.store, out)
        for path in out.iterdir():
            assert path.read_bytes() == (source / path.name).read_bytes()
    mapfs("import", f"{source}/", volume.store)
    mapfs("export", volume.store, out)
    assert describe(out) == describe(source)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_export_that_is_stopped_goes_on_when_it_is_run_again(
    volume: Volume, tmp_path: Path, out: Path, how: int
) -> None:
    source = large_tree(tmp_path / "source")
    mapfs("import", f"{source}/", volume.store)
    code = stopped(
        ["export", str(volume.store), str(out)],
        lambda: out.exists() and len(os.listdir(out)) > 100,
        how,
    )
    assert code in (0, 130, -how)
    for path in out.iterdir():
        if path.stat().st_mtime_ns == (source / path.name).stat().st_mtime_ns:
            assert path.read_bytes() == (source / path.name).read_bytes()
        else:
            assert how == signal.SIGKILL
    mapfs("export", volume.store, out)
    assert describe(out) == describe(source)


def test_an_import_into_a_mount_that_is_stopped_leaves_only_what_is_complete(
    volume: Volume, tmp_path: Path
) -> None:
    source = large_tree(tmp_path / "source")
    mnt = volume.mount()
    into = mnt / "source"
    code = stopped(
        ["import", str(source), str(mnt)],
        lambda: into.exists() and len(os.listdir(into)) > 100,
        signal.SIGINT,
    )
    assert code in (0, 130)
    for path in into.iterdir():
        assert path.read_bytes() == (source / path.name).read_bytes()
        assert path.stat().st_mtime_ns == (source / path.name).stat().st_mtime_ns
    mapfs("import", source, mnt)
    assert describe(into) == describe(source)


def test_ctrl_c_ends_a_wait_for_standard_input(volume: Volume) -> None:
    with subprocess.Popen(
        [str(MAPFS), "import", "-", str(volume.store)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_until(lambda: volume.lock_holders, "the store to be opened")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert process.stderr is not None
        assert process.stderr.read() == f"mapfs: {volume.store}: interrupted\n"


# Full


def test_a_full_store_is_one_line_and_goes_on_with_room(
    make_volume: MakeVolume, tmp_path: Path
) -> None:
    volume = make_volume()
    volume.mkfs("--size", "24M")
    source = tmp_path / "source"
    source.mkdir()
    for number in range(30):
        (source / f"{number:02}").write_bytes(bytes([number]) * (1 << 20))
    line = refusal(mapfs("import", f"{source}/", volume.store, status=1))
    assert line.startswith(f"mapfs: {volume.store}: no space left")
    mnt = volume.mount()
    kept = sorted(path.name for path in mnt.iterdir())
    assert 10 < len(kept) < 30
    for path in mnt.iterdir():
        assert path.read_bytes() == (source / path.name).read_bytes()
        if path.name < "05":
            path.unlink()
            (source / path.name).unlink()
    volume.umount()
    mapfs("import", f"{source}/", volume.store, status=1)
    mnt = volume.mount()
    assert max(path.name for path in mnt.iterdir()) > kept[-1]
    line = refusal(mapfs("import", f"{source}/", mnt, status=1))
    assert line.startswith(f"mapfs: {mnt}: no space left")
    for path in mnt.iterdir():
        assert path.read_bytes() == (source / path.name).read_bytes()


def test_of_a_file_larger_than_a_mount_has_room_for_nothing_is_left(
    make_volume: MakeVolume, tmp_path: Path
) -> None:
    volume = make_volume()
    volume.mkfs("--size", "24M")
    mnt = volume.mount()
    (tmp_path / "huge").write_bytes(bytes(1 << 20) * 40)
    line = refusal(mapfs("import", tmp_path / "huge", mnt, status=1))
    assert line.startswith(f"mapfs: {mnt}: no space left")
    assert os.listdir(mnt) == []


def test_what_cannot_be_written_to_is_one_line(volume: Volume, tmp_path: Path, tree: Path) -> None:
    mapfs("import", tree, volume.store)
    mnt = volume.mount("--read-only")
    (tmp_path / "file").write_text("x")
    line = refusal(mapfs("import", tmp_path / "file", mnt, status=1))
    assert os.strerror(errno.EROFS) in line
    with Path("/dev/full").open("wb") as full:
        command = [str(MAPFS), "export", f"{mnt}:top/of-70000-bytes", "-"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "mapfs: standard output: No space left on device\n"


# Terminals


def test_on_a_terminal_a_bar_shows_how_far_it_is(volume: Volume, tmp_path: Path) -> None:
    source = large_tree(tmp_path / "source")
    said = in_terminal(["import", f"{source}/", str(volume.store)])
    assert "importing" in said
    assert "\x1b[" in said
    assert "MiB" in said
    assert said.splitlines()[-1].endswith("301 copied (45.7M)")
    assert "exporting" in in_terminal(["export", str(volume.store), str(tmp_path / "a.tar")])
