"""Archives: what mapfs writes, other programs read, and the other way; hostile and damaged ones."""

import gzip
import io
import os
import stat
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from mapfs.errors import ArchiveError, InvalidArgumentError
from mapfs.transfer import acl_text
from tests.mount.tree import describe, make_tree
from tests.transfer.conftest import Vault
from tests.unit.support import ME, content

COMPRESSIONS = ("tar", "tar.gz", "tgz", "tar.bz2", "tar.xz", "tar.zst")
AS_ROOT = ("--acls", "--xattrs", "--xattrs-include=*", "--numeric-owner")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with everything that a tar archive can hold; not to be changed."""
    top = tmp_path_factory.mktemp("tree") / "top"
    make_tree(top)
    (top / "socket").unlink()
    (top / "of-3000000-bytes").unlink()  # compressing it takes long
    with (top / "all hole").open("wb") as file:
        file.truncate(3 << 20)
    os.utime(top, ns=(5, 1_700_000_000_123_456_789))
    return top


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_a_tree_goes_through_a_tar_archive(
    vault: Vault, tree: Path, tmp_path: Path, suffix: str
) -> None:
    vault.take(f"{tree}/", b"a")
    archive = tmp_path / f"archive.{suffix}"
    assert not vault.give(archive, b"a").failures
    assert archive.stat().st_size < 8 << 20  # the holes are not in it
    nameless = archive.rename(tmp_path / "of any name")
    assert not vault.take(nameless, b"b").failures
    out = tmp_path / "out"
    assert not vault.give(out, b"b").failures
    assert describe(out) == describe(tree)
    assert out.stat().st_mtime_ns == tree.stat().st_mtime_ns


def test_gnu_tar_reads_what_is_written(vault: Vault, tree: Path, tmp_path: Path) -> None:
    vault.take(f"{tree}/")
    archive, out = tmp_path / "archive.tar.zst", tmp_path / "out"
    vault.give(archive)
    out.mkdir()
    done = subprocess.run(
        ["tar", "-C", str(out), *AS_ROOT, "-xpf", str(archive)], check=True, capture_output=True
    )
    assert done.stderr == b""
    assert describe(out) == describe(tree)
    assert (out / "sparse").stat().st_blocks * 512 < 1 << 20


@pytest.mark.parametrize("form", ["posix", "gnu", "ustar", "v7"])
def test_what_gnu_tar_writes_is_read(vault: Vault, tmp_path: Path, form: str) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    (source / "directory").mkdir(parents=True)
    (source / "directory" / "file").write_bytes(b"x" * 5000)
    os.link(source / "directory" / "file", source / "name")
    (source / "link").symlink_to("name")
    for path in (*source.rglob("*"), source):
        os.utime(path, ns=(10**18, 10**18), follow_symlinks=False)
    archive = tmp_path / "archive"
    command = ["tar", "-C", str(source), f"--format={form}", "--numeric-owner", "-cf"]
    subprocess.run([*command, str(archive), "."], check=True)
    assert not vault.take(archive).failures
    vault.give(out)
    assert describe(out) == describe(source)


@pytest.mark.parametrize("sparse", ["0.0", "0.1", "1.0"])
def test_sparse_files_of_gnu_tar(vault: Vault, tree: Path, tmp_path: Path, sparse: str) -> None:
    archive = tmp_path / "archive.tar"
    options = [*AS_ROOT, "--format=posix", "--sparse", f"--sparse-version={sparse}"]
    command = ["tar", "-C", str(tree), *options, "-cf", str(archive), "."]
    subprocess.run(command, check=True)
    assert not vault.take(archive).failures
    out = tmp_path / "out"
    vault.give(out)
    assert describe(out) == describe(tree)
    assert (out / "sparse").stat().st_blocks * 512 < 1 << 20


def test_a_tree_goes_through_a_zip_archive(vault: Vault, tmp_path: Path) -> None:
    source, out, unzipped = tmp_path / "source", tmp_path / "out", tmp_path / "unzipped"
    (source / "directory").mkdir(parents=True)
    (source / "directory" / "naïve").write_bytes(b"x" * 70_000)
    (source / "script").write_text("#!/bin/sh\n")
    (source / "script").chmod(0o750)
    (source / "link").symlink_to("script")
    if os.geteuid() == 0:
        os.chown(source / "script", 1234, 5678)
    for path in source.rglob("*"):
        os.utime(path, ns=(10**18, 10**18), follow_symlinks=False)
    vault.take(f"{source}/", b"a")
    archive = tmp_path / "archive.zip"
    assert not vault.give(archive, b"a").failures
    assert not vault.take(archive, b"b").failures
    vault.give(out, b"b")
    assert describe(out) == describe(source)
    unzipped.mkdir()
    subprocess.run(["unzip", "-q", archive], cwd=unzipped, check=True)
    found = describe(unzipped)
    for name, described in describe(source).items():
        for key in ("mode", "size", "target", "content"):
            assert found[name][key] == described[key], name


def test_what_zip_writes_is_read(vault: Vault, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    (source / "directory").mkdir(parents=True)
    (source / "directory" / "file").write_bytes(b"x" * 5000)
    (source / "link").symlink_to("directory/file")
    for path in source.rglob("*"):
        os.utime(path, ns=(10**18, 10**18), follow_symlinks=False)
    archive = tmp_path / "archive"
    subprocess.run(["zip", "-qry", f"{archive}.zip", "."], cwd=source, check=True)
    assert not vault.take(Path(f"{archive}.zip").rename(archive)).failures
    vault.give(out)
    assert describe(out) == describe(source)


def test_what_a_zip_archive_cannot_hold_is_told(vault: Vault, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    os.mkfifo(source / "fifo")
    (source / os.fsdecode(b"caf\xe9")).write_text("x")
    (source / "file").write_text("x")
    vault.take(f"{source}/")
    outcome = vault.give(tmp_path / "out.zip")
    assert [failure.path for failure in outcome.failures] == ["caf\\xe9", "fifo"]
    assert zipfile.ZipFile(tmp_path / "out.zip").namelist() == ["file"]


def test_a_hard_link_is_a_copy_in_a_zip_archive(vault: Vault, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "one").write_text("content")
    os.link(source / "one", source / "two")
    vault.take(f"{source}/")
    vault.give(tmp_path / "out.zip")
    archive = zipfile.ZipFile(tmp_path / "out.zip")
    assert {name: archive.read(name) for name in archive.namelist()} == {
        "one": b"content",
        "two": b"content",
    }


# Hostile and odd archives


def member(name: str, data: bytes = b"", **fields: Any) -> tuple[Any, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def write_tar(path: Path, members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[Any, bytes]:
    return member(name, type=kind, linkname=target)


@pytest.mark.parametrize(
    "members",
    [
        [member("../evil", b"x")],
        [member("/evil", b"x")],
        [member("a/../../evil", b"x")],
        [member("..", type=tarfile.DIRTYPE)],
        [link("evil", "../../etc/passwd", tarfile.LNKTYPE)],
        [link("evil", "/etc/passwd", tarfile.LNKTYPE)],
        [link("evil", "evil", tarfile.LNKTYPE)],
        [link("evil", "")],
        [member("evil", type=b"Z")],
        [member("evil", pax_headers={"path": "e\0vil"})],
        [member("evil", pax_headers={"uid": "99999999999"})],
        [member("evil", type=tarfile.CHRTYPE, devmajor=0o777777)],
        [member("x" * 300, b"x")],
        [member("d/" * 40_000, b"x")],
    ],
    ids=lambda members: members[0][0].name[:10] + str(members[0][0].type),
)
def test_a_member_that_must_not_be_is_told_in_one_line_and_the_rest_is_copied(
    vault: Vault, tmp_path: Path, members: list[tuple[Any, bytes]]
) -> None:
    archive = write_tar(tmp_path / "evil.tar", [*members, member("good", b"good")])
    outside = set(os.listdir(tmp_path))
    outcome = vault.take(archive, b"inside")
    assert len(outcome.failures) == 1
    assert outcome.copied == 1
    assert set(os.listdir(tmp_path)) == outside
    out = tmp_path / "out"
    vault.give(out)
    assert [path.name for path in out.rglob("*")] == ["inside", "good"]


def test_links_that_an_archive_brings_are_not_followed(vault: Vault, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    archive = write_tar(
        tmp_path / "evil.tar",
        [
            link("way", str(outside)),
            member("way/evil", b"x"),
            member("way", type=tarfile.DIRTYPE, mode=0o777),
            link("file", str(outside / "kept")),
            member("file", b"instead of the link"),
            link("hard", "way", tarfile.LNKTYPE),
            member("hard/evil", b"x"),
        ],
    )
    with vault.opened() as filesystem:
        before = filesystem.store.state.inodes
    failures = vault.take(archive).failures
    assert [failure.path for failure in failures] == ["way/evil", "way", "hard/evil"]
    with vault.opened() as filesystem:
        assert filesystem.store.state.inodes == before + 2
        assert filesystem.resolve(b"file").size == len("instead of the link")
    out = tmp_path / "out"
    vault.give(out)
    assert os.listdir(outside) == ["kept"]
    assert (outside / "kept").read_text() == "kept"


def test_the_last_of_members_with_one_name_stays(vault: Vault, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", [member("x", b"first"), member("./x", b"second one")])
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("y", b"first")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("y", b"second one")
    for _ in range(2):
        assert not vault.take(tar).failures
        assert not vault.take(tmp_path / "a.zip").failures
        with vault.opened() as filesystem:
            for name in (b"x", b"y"):
                assert content(filesystem, filesystem.resolve(name).number) == b"second one"


def test_members_without_their_directories(vault: Vault, tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tar", [member("a/b/c", b"x")])
    assert not vault.take(archive).failures
    with vault.opened() as filesystem:
        assert stat.S_IMODE(filesystem.resolve(b"a/b").mode) == 0o755


def test_a_directory_that_forbids_writing_is_filled(vault: Vault, tmp_path: Path) -> None:
    archive = write_tar(
        tmp_path / "a.tar",
        [member("a", type=tarfile.DIRTYPE, mode=0o555, mtime=5), member("a/b", b"x")],
    )
    assert not vault.take(archive).failures
    with vault.opened() as filesystem:
        found = filesystem.resolve(b"a")
        assert (stat.S_IMODE(found.mode), found.mtime) == (0o555, 5 * 10**9)


def test_times_that_no_clock_shows(vault: Vault, tmp_path: Path) -> None:
    times = ["1e999999999", "-1e30", "nonsense", "NaN", "9" * 30, "-1.5", "1.000000001"]
    members = [member(str(n), pax_headers={"mtime": time}) for n, time in enumerate(times)]
    archive = write_tar(tmp_path / "a.tar", members)
    vault.take(archive)
    with vault.opened() as filesystem:
        assert filesystem.resolve(b"5").mtime == -1_500_000_000
        assert filesystem.resolve(b"6").mtime == 1_000_000_001


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.bz2", "tar.zst"])
def test_an_archive_that_is_cut_off_is_told(vault: Vault, tmp_path: Path, suffix: str) -> None:
    data = os.urandom(700_000)
    source = tmp_path / "source"
    source.mkdir()
    for name in "abc":
        (source / name).write_bytes(data)
    vault.take(f"{source}/", b"a")
    archive = tmp_path / f"archive.{suffix}"
    vault.give(archive, b"a")
    os.truncate(archive, archive.stat().st_size * 3 // 4)
    failures = vault.take(archive, b"b").failures
    assert failures
    assert failures[-1].path == str(archive)
    with vault.opened() as filesystem:
        names = [entry.name for entry in filesystem.readdir(filesystem.resolve(b"b").number)][2:]
        assert len(names) < 3
        for found in names:
            number = filesystem.resolve(b"b/" + found).number
            assert content(filesystem, number) == data


def test_an_archive_that_ends_between_two_members_is_told(vault: Vault, tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tar", [member("a", b"x" * 512), member("b", b"x" * 512)])
    os.truncate(archive, 2 * 1024)
    assert [failure.path for failure in vault.take(archive).failures] == [str(archive)]
    with archive.open("ab") as file:
        file.write(b"no header" * 100)
    assert [failure.path for failure in vault.take(archive).failures] == [str(archive)]


@pytest.mark.parametrize("at", [0, 100_000], ids=["at its beginning", "in a member"])
def test_a_compressed_archive_that_is_damaged_is_told(
    vault: Vault, tmp_path: Path, at: int
) -> None:
    archive = write_tar(tmp_path / "a.tar", [member("large", os.urandom(200_000).hex().encode())])
    packed = bytearray(gzip.compress(archive.read_bytes()))
    packed[at + 10 : at + 74] = b"\xff" * 64
    archive.with_suffix(".tar.gz").write_bytes(packed)
    if at == 0:
        with pytest.raises(ArchiveError, match="not an archive that can be read"):
            vault.take(archive.with_suffix(".tar.gz"))
    else:
        failures = vault.take(archive.with_suffix(".tar.gz")).failures
        assert any("damaged" in failure.reason for failure in failures)
    with vault.opened() as filesystem:
        assert [entry.name for entry in filesystem.readdir(1)][2:] == []


def test_a_file_that_only_begins_like_gzip_is_copied_as_it_is(vault: Vault, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(b"\x1f\x8b\x08" + bytes(7) + b"\xff" * 1000)
    assert not vault.take(source).failures
    with vault.opened() as filesystem:
        found = content(filesystem, filesystem.resolve(b"file").number)
    assert found == source.read_bytes()


def test_a_zip_archive_with_a_name_that_is_no_utf_8_is_refused(
    vault: Vault, tmp_path: Path
) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("\N{LATIN SMALL LETTER E WITH ACUTE}", b"x")
    archive.write_bytes(archive.read_bytes().replace(b"\xc3\xa9", b"\xff\xfe"))
    with pytest.raises(ArchiveError, match="cannot be read"):
        vault.take(archive)


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.map": "x,y", "GNU.sparse.size": "1024"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "zz"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1024"},
    ],
)
def test_a_sparse_map_without_sense_is_told(
    vault: Vault, tmp_path: Path, headers: dict[str, str]
) -> None:
    members = [member("good", b"x"), member("bad", b"abc".ljust(512, b"\n"), pax_headers=headers)]
    archive = write_tar(tmp_path / "a.tar", members)
    assert [failure.path for failure in vault.take(archive).failures] == [str(archive)]
    with vault.opened() as filesystem:
        assert filesystem.resolve(b"good").size == 1


def test_a_zip_archive_with_a_wrong_checksum_leaves_no_file(vault: Vault, tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("bad", b"content that is stored")
        made.writestr("good", b"good")
    archive.write_bytes(archive.read_bytes().replace(b"content", b"CONTENT", 1))
    assert [failure.path for failure in vault.take(archive).failures] == ["bad"]
    with vault.opened() as filesystem:
        assert [entry.name for entry in filesystem.readdir(1)][2:] == [b"good"]


def test_a_zip_archive_with_names_that_lead_out(vault: Vault, tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as made:
        for name in ("../evil", "/evil", "a/../../evil", "good"):
            made.writestr(name, b"x")
        fifo = zipfile.ZipInfo("fifo")
        fifo.create_system, fifo.external_attr = 3, (stat.S_IFIFO | 0o600) << 16
        made.writestr(fifo, b"")
    failures = vault.take(archive).failures
    assert [failure.path for failure in failures] == ["../evil", "/evil", "a/../../evil", "fifo"]


def test_sparse_maps_that_cannot_be(vault: Vault, tmp_path: Path) -> None:
    def sparse(name: str, numbers: str, size: int) -> tuple[Any, bytes]:
        headers = {"GNU.sparse.map": numbers, "GNU.sparse.size": str(size)}
        return member(name, b"x" * 512, pax_headers=headers)

    archive = write_tar(
        tmp_path / "a.tar",
        [
            sparse("backwards", "512,256,0,256", 1024),
            sparse("beyond", "0,512", 100),
            sparse("good", "512,512", 2048),
        ],
    )
    failures = vault.take(archive).failures
    assert [failure.path for failure in failures] == ["backwards", "beyond"]
    with vault.opened() as filesystem:
        assert filesystem.resolve(b"good").size == 2048


def test_what_is_no_archive_is_copied_as_it_is(vault: Vault, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    compressed = subprocess.run(["gzip"], input=b"a log", capture_output=True, check=True).stdout
    contents = {"log.gz": compressed, "zeros": bytes(4096), "empty": b"", "gz": b"\x1f\x8bjunk"}
    for name, found in contents.items():
        (source / name).write_bytes(found)
        assert not vault.take(source / name).failures
    out = tmp_path / "out"
    vault.give(out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == contents


def test_what_is_only_called_an_archive_is_refused(vault: Vault, tmp_path: Path) -> None:
    for name in ("a.tar", "a.tar.gz", "a.zip"):
        (tmp_path / name).write_bytes(b"something else" * 100)
        with pytest.raises(ArchiveError):
            vault.take(tmp_path / name)
    (tmp_path / "empty.tar").write_bytes(bytes(10240))
    assert not vault.take(tmp_path / "empty.tar").failures


def test_an_archive_is_replaced_only_by_a_complete_one(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.tar.gz"
    target.write_text("before")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with vault.opened() as filesystem:
        filesystem.symlink(1, b"link", b"target", ME)
    with monkeypatch.context() as patch:
        patch.setattr("mapfs.transfer.tar.TarTarget.put", fail)
        with pytest.raises(KeyboardInterrupt):
            vault.give(target)
    assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []
    vault.give(target)
    with tarfile.open(target) as archive:
        assert archive.getnames() == [".", "link"]


def test_acls_as_text() -> None:
    text = "user::rwx,user:1234:r--,group::r-x,group:5678:rw-,mask::rwx,other::---"
    value = acl_text.from_text(text)
    assert acl_text.to_text(value) == text
    assert acl_text.from_text("user::rwx\nuser:nobody-here:r--:1234 # so\ngroup::r-x\n"
                              "group:5678:rw-\nmask::rwx\nother::---\n") == value  # fmt: skip
    root = acl_text.from_text("user::rwx,user:root:r--,group::r-x,mask::r-x,other::---")
    assert acl_text.to_text(root).split(",")[1] == "user:0:r--"
    for bad in ("", "user", "user::rwx", "user::abc,group::r--,other::r--", "x::r--",
                "user::rwx,user:nobody-here:r--,group::r-x,mask::r-x,other::---"):  # fmt: skip
        with pytest.raises(InvalidArgumentError):
            acl_text.from_text(bad)


def test_large_numbers_in_headers(vault: Vault, tmp_path: Path) -> None:
    """More than the octal fields of the plain header have room for."""
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    deep = source / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    (deep / ("f" * 120)).symlink_to("/".join(["t" * 100] * 3))
    with (source / "large").open("wb") as file:
        file.truncate(10 << 30)
        file.write(b"begins")
    os.utime(source / "large", ns=(-5, -1))
    if os.geteuid() == 0:
        os.chown(source / "large", 4_000_000_000, 3_000_000)
    vault.take(f"{source}/")
    vault.give(tmp_path / "out.tar")
    again = Vault(vault.path)
    assert not again.take(tmp_path / "out.tar", b"again").failures
    with tarfile.open(tmp_path / "out.tar") as archive:
        assert archive.getmember("large").size == 10 << 30
    with vault.opened() as filesystem:
        first, second = (filesystem.resolve(path) for path in (b"large", b"again/large"))
        for key in ("size", "pages", "uid", "gid", "mtime", "atime"):
            assert getattr(first, key) == getattr(second, key), key
    out.mkdir()
    subprocess.run(["tar", "-C", out, "--numeric-owner", "-xf", tmp_path / "out.tar"], check=True)
    for large in (source / "large", out / "large"):
        assert large.stat().st_size == 10 << 30
        large.unlink()
    for top in (source, out):
        os.utime(top, ns=(1, 1))
    assert describe(out) == describe(source)


def test_extra_fields_of_zip_that_do_not_decode(vault: Vault, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number, extra in enumerate(
            (
                struct.pack("<HHB", 0x5455, 1, 1),
                struct.pack("<HHBB", 0x7875, 2, 1, 9),
                struct.pack("<HHBBQBQ", 0x7875, 19, 1, 8, 1 << 40, 8, 1),
            )
        ):
            info = zipfile.ZipInfo(str(number))
            info.extra = extra
            archive.writestr(info, b"x")
    assert not vault.take(tmp_path / "a.zip").failures
