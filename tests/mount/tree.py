"""A tree with everything that copying tools have to carry, and a description to compare by."""

import hashlib
import os
import random
import stat
import subprocess
from pathlib import Path

_SPACES = ("user.", "trusted.", "system.posix_acl")
_LONG_AGO_NS = 1_234_567_890_123_456_789


def make_tree(top: Path) -> None:
    """Fill `top`: sizes around a page, odd names, links, modes, times, attributes, ACLs, a hole."""
    top.mkdir(parents=True, exist_ok=True)
    content = random.Random(2)
    for size in (0, 1, 7, 4095, 4096, 4097, 5120, 70_000, 3_000_000):
        (top / f"of-{size}-bytes").write_bytes(content.randbytes(size))
    _fill_directories(top, content)
    _add_links_and_nodes(top)
    _add_attributes(top)
    for path in sorted(top.rglob("*"), reverse=True):  # the parents last
        os.utime(path, ns=(_LONG_AGO_NS, _LONG_AGO_NS + len(path.name)), follow_symlinks=False)


def _fill_directories(top: Path, content: random.Random) -> None:
    for number in range(5):
        below = top / f"directory {number}" / "a" / "b" / "c"
        below.mkdir(parents=True)
        for file in range(40):
            (below.parents[file % 4] / f"{file}.txt").write_bytes(content.randbytes(file * 211))
    (top / "empty").mkdir()
    for name in (b"caf\xc3\xa9", b"not utf-8 \xff\xfe", b"new\nline", b"-dash", b"x" * 255):
        (top / "directory 0" / os.fsdecode(name)).write_bytes(name)
    with (top / "sparse").open("wb") as sparse:
        sparse.truncate(10 << 20)
        sparse.seek(5 << 20)
        sparse.write(b"in the middle")


def _add_links_and_nodes(top: Path) -> None:
    (top / "to a file").symlink_to("of-7-bytes")
    (top / "to nowhere").symlink_to("/no/such/place")
    (top / "directory 1" / "a" / "up").symlink_to("../..")
    os.link(top / "of-5120-bytes", top / "directory 2" / "another name")
    os.link(top / "of-5120-bytes", top / "directory 3" / "a" / "third name")
    os.mkfifo(top / "fifo", 0o640)
    os.mknod(top / "socket", 0o600 | stat.S_IFSOCK)
    for name, mode in (("of-1-bytes", 0o400), ("of-7-bytes", 0o4755), ("empty", 0o1755)):
        (top / name).chmod(mode)
    if os.geteuid() == 0:
        os.chown(top / "of-4096-bytes", 1234, 5678)
        os.mknod(top / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))


def _add_attributes(top: Path) -> None:
    os.setxattr(top / "of-4097-bytes", "user.comment", "naïve ünd längér".encode())
    os.setxattr(top / "of-4097-bytes", "user.binary", bytes(range(256)))
    os.setxattr(top / "directory 4", "user.empty", b"")
    if os.geteuid() == 0:
        os.setxattr(top / "of-70000-bytes", "trusted.secret", b"for root")
    # rsync 3.2 loses the entry of the owning group where it is equal to the mask.
    acls = (("u:1234:rw-", "of-0-bytes"), ("g:5678:rwx", "empty"), ("d:u:1234:rwx", "empty"))
    for entry, name in acls:
        subprocess.run(["setfacl", "-m", entry, top / name], check=True)


def describe(top: Path) -> dict[str, dict[str, object]]:
    """Every file below `top`, by its path, with all that a faithful copy has to keep."""
    return {
        str(path.relative_to(top)): _described(path)
        for path in sorted(top.rglob("*"))
        if path != top
    }


def _described(path: Path) -> dict[str, object]:
    found = path.lstat()
    is_directory = stat.S_ISDIR(found.st_mode)
    return {
        "mode": oct(found.st_mode),
        "owner": (found.st_uid, found.st_gid),
        "links": None if is_directory else found.st_nlink,
        "size": None if is_directory else found.st_size,
        "mtime": found.st_mtime_ns,
        "device": found.st_rdev,
        "target": os.readlink(path) if stat.S_ISLNK(found.st_mode) else None,
        "content": _digest(path) if stat.S_ISREG(found.st_mode) else None,
        "attributes": _attributes(path),
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _attributes(path: Path) -> dict[str, bytes]:
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
        if name.startswith(_SPACES)
    }
