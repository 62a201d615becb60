"""Copying into directories that the copy makes, in which it does not ask whether a name is free."""

import contextlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from mapfs.transfer import into_directory
from mapfs.transfer.archives import archive_source
from mapfs.transfer.copying import Source, copy
from mapfs.transfer.directory import DirectorySource
from mapfs.transfer.into_directory import DirectoryTree
from mapfs.transfer.outcome import Outcome
from tests.mount.tree import describe

REGULAR, DIRECTORY, SYMLINK, LINK = (
    tarfile.REGTYPE,
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
)


def fill(source: Path | str, out: Path, outcome: Outcome | None = None) -> Outcome:
    outcome = outcome or Outcome()
    with (
        contextlib.closing(DirectoryTree(str(out))) as tree,
        archive_source(str(source), outcome) as archive,
    ):
        plain: Source = archive or DirectorySource(str(source), outcome)
        copy(plain, tree, outcome)
    return outcome


def make_archive(path: Path, *members: tuple[str, bytes, str]) -> Path:
    """A tar archive of names, types, and contents or what links lead to."""
    with tarfile.open(path, "w") as archive:
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o700
            info.uid, info.gid = os.geteuid(), os.getegid()
            if kind == REGULAR:
                info.size = len(text)
            else:
                info.linkname = text
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


def test_of_two_members_of_one_name_the_last_stays(tmp_path: Path) -> None:
    archive = make_archive(
        tmp_path / "archive",
        ("d", DIRECTORY, ""),
        ("d/file", REGULAR, "first"),
        ("d/file", REGULAR, "the last"),
        ("d/link", SYMLINK, "first"),
        ("d/link", SYMLINK, "the last"),
        ("d/other", REGULAR, "to be replaced"),
        ("d/other", LINK, "d/file"),
        ("d/became a link", REGULAR, "x"),
        ("d/became a link", SYMLINK, "file"),
        ("d", DIRECTORY, ""),
        ("d/late", REGULAR, "late"),
    )
    out = tmp_path / "out"
    outcome = fill(archive, out)
    assert outcome.failures == []
    assert (outcome.copied, outcome.skipped) == (10, 1)
    assert (out / "d" / "file").read_text() == "the last"
    assert (out / "d" / "link").readlink() == Path("the last")
    assert (out / "d" / "other").samefile(out / "d" / "file")
    assert (out / "d" / "became a link").is_symlink()
    assert sorted(os.listdir(out / "d")) == ["became a link", "file", "late", "link", "other"]


def test_neither_file_nor_directory_replaces_the_other_in_a_new_directory(tmp_path: Path) -> None:
    archive = make_archive(
        tmp_path / "archive",
        ("d", DIRECTORY, ""),
        ("d/below", DIRECTORY, ""),
        ("d/below", REGULAR, "x"),
        ("d/file", REGULAR, "stays"),
        ("d/file", DIRECTORY, ""),
        ("d/file/in it", REGULAR, "x"),
    )
    failures = fill(archive, tmp_path / "out").failures
    assert [tuple(failure) for failure in failures] == [
        ("d/below", "not copied: there is a directory of that name"),
        ("d/file", "not copied: there is a file of that name"),
        ("d/file/in it", "refused: d/file is not a directory"),
    ]
    assert (tmp_path / "out" / "d" / "file").read_text() == "stays"


def test_what_others_put_into_a_new_directory_is_replaced(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for name in ("a", "b", "c"):
        (source / name).write_text(f"{name} of the source")
    outside = tmp_path / "outside"
    outside.write_text("untouched")

    def interfere() -> None:
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            (out / "source" / "c").symlink_to(outside)

    outcome = fill(source, out, Outcome(on_step=interfere))
    assert outcome.failures == []
    assert describe(out / "source") == describe(source)
    assert outside.read_text() == "untouched"


def test_a_default_acl_that_new_directories_would_get_is_not_kept(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    (source / "a" / "b").mkdir(parents=True)
    (source / "a" / "b" / "file").write_text("x")
    out.mkdir()
    acl = bytes.fromhex("02000000 01000700ffffffff 02000700d2040000 04000500ffffffff")
    acl += bytes.fromhex("10000700ffffffff 20000500ffffffff")
    os.setxattr(out, "system.posix_acl_default", acl)
    assert fill(source, out).failures == []
    assert describe(out / "source") == describe(source)


def test_writing_a_large_file_begins_before_all_of_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * (9 << 20))
    begun: list[tuple[int, int, int]] = []

    def begin(fd: int, offset: int, length: int) -> None:
        begun.append((offset, length, os.fstat(fd).st_size))

    monkeypatch.setattr(into_directory, "sync_file_range", begin)
    assert fill(source, tmp_path / "out").failures == []
    part = 4 << 20
    assert begun == [(0, part, part), (part, part, 2 * part)]
