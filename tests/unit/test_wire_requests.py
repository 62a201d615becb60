"""Each request of the wire transport, asked as the kernel asks it."""

import errno
import os
import stat
from struct import pack, unpack_from

import pytest
import trio

from mapfs.fuse.options import Cache, MountOptions
from mapfs.fuse.wire import block_counts, protocol
from mapfs.fuse.wire.protocol import Opcode
from tests.unit.support import ROOT, content, make, names
from tests.unit.wire_kernel import Kernel, play

WRITE_THROUGH = MountOptions(cache=Cache.WRITETHROUGH)
NAME = b"name\0"


def nodeid_of(entry: bytes) -> int:
    (number,) = unpack_from("=Q", entry)
    return int(number)


def mknod(name: bytes, mode: int = 0o100644, rdev: int = 0, umask: int = 0) -> bytes:
    return pack("=IIII", mode, rdev, umask, 0) + name + b"\0"


def write(offset: int, data: bytes, flags: int = 0) -> bytes:
    return pack("=QQIIQII", 0, offset, len(data), flags, 0, 0, 0) + data


def read(offset: int, size: int) -> bytes:
    return pack("=QQIIQII", 0, offset, size, 0, 0, 0, 0)


def setattr_in(valid: int, **given: int) -> bytes:
    order = ("size", "atime", "mtime", "ctime", "atimensec", "mtimensec", "ctimensec")
    values = [given.get(name, 0) for name in (*order, "mode", "uid", "gid")]
    return pack("=II8xQ8xqqqIIII4xII4x", valid, 0, *values)


def dirents(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """(ino, off, type, name) of each."""
    found = []
    while data:
        ino, off, length, kind = unpack_from("=QQII", data)
        found.append((ino, off, kind, data[24 : 24 + length]))
        data = data[(24 + length + 7) // 8 * 8 :]
    return found


def test_names_are_made_found_and_removed(fs):
    async def scenario(kernel: Kernel) -> None:
        entry = await kernel.get(Opcode.MKNOD, mknod(b"name"))
        assert await kernel.get(Opcode.LOOKUP, NAME) == entry
        moved = pack("=Q", ROOT) + b"name\0other\0"
        assert await kernel.get(Opcode.RENAME, moved) == b""
        linked = await kernel.get(Opcode.LINK, pack("=Q", nodeid_of(entry)) + NAME)
        assert nodeid_of(linked) == nodeid_of(entry)
        assert names(fs) == [b"other", b"name"]
        assert await kernel.get(Opcode.UNLINK, NAME) == b""
        assert await kernel.get(Opcode.UNLINK, b"other\0") == b""
        assert names(fs) == []

    play(fs, scenario)


def test_directories_and_symbolic_links(fs):
    async def scenario(kernel: Kernel) -> None:
        entry = await kernel.get(Opcode.MKDIR, pack("=II", 0o777, 0o027) + NAME, uid=7, gid=8)
        made = fs.inode(nodeid_of(entry))
        assert (made.mode, made.uid, made.gid) == (stat.S_IFDIR | 0o750, 7, 8)
        entry = await kernel.get(Opcode.SYMLINK, b"link\0the target\0", made.number)
        assert await kernel.get(Opcode.READLINK, b"", nodeid_of(entry)) == b"the target"
        assert (await kernel.ask(Opcode.RMDIR, NAME)).error == errno.ENOTEMPTY
        await kernel.get(Opcode.UNLINK, b"link\0", made.number)
        assert await kernel.get(Opcode.RMDIR, NAME) == b""

    play(fs, scenario)


def test_special_files_keep_their_device_number(fs):
    async def scenario(kernel: Kernel) -> None:
        entry = await kernel.get(Opcode.MKNOD, mknod(b"d", stat.S_IFBLK | 0o600, 0x123ABC45))
        made = fs.inode(nodeid_of(entry))
        assert (os.major(made.rdev), os.minor(made.rdev)) == (0xABC, 0x12345)
        assert unpack_from("=I", entry, 40 + 76) == (0x123ABC45,)

    play(fs, scenario)


def test_a_missing_name_may_be_remembered(fs):
    async def scenario(kernel: Kernel) -> None:
        assert nodeid_of(await kernel.get(Opcode.LOOKUP, NAME)) == 0
        assert (await kernel.ask(Opcode.LOOKUP, NAME, 999)).error == errno.ENOENT

    play(fs, scenario)


@pytest.mark.parametrize(
    ("flags", "error"), [(0, 0), (1, errno.EEXIST), (2, 0), (4, errno.EINVAL), (64, errno.EINVAL)]
)
def test_renames_with_flags(fs, flags, error):
    old, new = make(fs, b"old"), make(fs, b"new")
    body = pack("=QII", ROOT, flags, 0) + b"old\0new\0"

    async def scenario(kernel: Kernel) -> None:
        assert (await kernel.ask(Opcode.RENAME2, body)).error == error

    play(fs, scenario)
    expected = {0: [old], 2: [old, new]}.get(flags)
    if expected:
        assert [fs.lookup(ROOT, name).number for name in [b"new", b"old"][: len(expected)]] == (
            expected
        )
    else:
        assert fs.lookup(ROOT, b"old").number == old


@pytest.mark.parametrize("options", [MountOptions(), WRITE_THROUGH], ids=["back", "through"])
def test_content_is_written_and_read(fs, options):
    number = make(fs, b"f")
    data = os.urandom(100_000)

    async def scenario(kernel: Kernel) -> None:
        assert await kernel.get(Opcode.WRITE, write(5, data), number) == pack("=II", 100_000, 0)
        assert await kernel.get(Opcode.READ, read(0, 1 << 20), number) == bytes(5) + data
        assert await kernel.get(Opcode.READ, read(99_999, 10), number) == data[-6:]
        assert await kernel.get(Opcode.READ, read(1 << 40, 10), number) == b""

    play(fs, scenario, options)


def test_set_id_bits_are_cleared_when_the_kernel_says_so(fs):
    number = make(fs, b"f")
    for flags, mode in ((1, 0o6755), (1 | 4, 0o755)):
        body = setattr_in(protocol.FATTR_MODE, mode=0o6755)

        async def scenario(kernel: Kernel, body: bytes = body, flags: int = flags) -> None:
            await kernel.get(Opcode.SETATTR, body, number)
            await kernel.get(Opcode.WRITE, write(0, b"x", flags), number)

        kernel = play(fs, scenario)
        assert stat.S_IMODE(fs.inode(number).mode) == mode
        # fuse_notify_inval_inode_out: the attributes, no data.
        told = [(2, pack("=Qqq", number, -1, 0))] if mode == 0o755 else []
        assert kernel.notifications == told


def test_attributes_are_set(fs):
    number = make(fs, b"f", b"0123456789")

    async def scenario(kernel: Kernel) -> None:
        valid = (
            protocol.FATTR_MODE
            | protocol.FATTR_UID
            | protocol.FATTR_GID
            | protocol.FATTR_SIZE
            | protocol.FATTR_ATIME
            | protocol.FATTR_MTIME
        )
        body = setattr_in(
            valid | protocol.FATTR_CTIME, mode=0o600, uid=5, gid=6, size=4,
            atime=-3, atimensec=1, mtime=10, mtimensec=2, ctime=11, ctimensec=3,
        )  # fmt: skip
        answer = await kernel.get(Opcode.SETATTR, body, number)
        assert answer == await kernel.get(Opcode.GETATTR, bytes(16), number)

    play(fs, scenario)
    found = fs.inode(number)
    assert (found.mode, found.uid, found.gid, found.size) == (stat.S_IFREG | 0o600, 5, 6, 4)
    assert (found.atime, found.mtime) == (-3 * 10**9 + 1, 10 * 10**9 + 2)
    assert found.ctime == 11 * 10**9 + 3


def test_nothing_is_set_that_is_not_meant(fs):
    number = make(fs, b"f", b"0123456789")
    before = fs.inode(number)
    kept = (before.mode, before.uid, before.gid, before.size, before.atime, before.mtime)

    async def scenario(kernel: Kernel) -> None:
        body = setattr_in(0, mode=1, uid=5, gid=6, size=4, atime=3, mtime=10)
        await kernel.get(Opcode.SETATTR, body, number)

    play(fs, scenario)
    after = fs.inode(number)
    assert kept == (after.mode, after.uid, after.gid, after.size, after.atime, after.mtime)


def test_statx_tells_the_time_of_birth(fs):
    number = make(fs, b"f")

    async def scenario(kernel: Kernel) -> None:
        answer = await kernel.get(Opcode.STATX, bytes(24), number)
        assert len(answer) == 288
        seconds, nanoseconds = unpack_from("=qI", answer, 112)
        assert seconds * 10**9 + nanoseconds == fs.inode(number).btime > 0

    play(fs, scenario)


def test_a_file_without_a_name(fs):
    async def scenario(kernel: Kernel) -> None:
        body = pack("=IIII", os.O_RDWR | os.O_TMPFILE, 0o100666, 0o022, 0) + b"/\0"
        answer = await kernel.get(Opcode.TMPFILE, body)
        assert len(answer) == 128 + 16
        number = nodeid_of(answer)
        assert fs.is_orphan(number)
        assert fs.inode(number).mode == stat.S_IFREG | 0o644
        await kernel.get(Opcode.LINK, pack("=Q", number) + NAME)
        assert not fs.is_orphan(number)

    play(fs, scenario)


@pytest.mark.parametrize("options", [MountOptions(), WRITE_THROUGH], ids=["back", "through"])
def test_ranges_are_allocated_punched_zeroed_and_sought(fs, options):
    number = make(fs, b"f", b"x" * 4096 * 4)

    async def scenario(kernel: Kernel) -> None:
        async def allocate(mode: int, offset: int, length: int) -> int:
            body = pack("=QQQII", 0, offset, length, mode, 0)
            return (await kernel.ask(Opcode.FALLOCATE, body, number)).error

        async def seek(offset: int, whence: int) -> int:
            answer = await kernel.ask(Opcode.LSEEK, pack("=QQII", 0, offset, whence, 0), number)
            assert answer.error in (0, errno.ENXIO)
            return -1 if answer.error else int.from_bytes(answer.content, "little")

        assert await allocate(3, 4096, 4096) == 0
        assert [await seek(0, 3), await seek(0, 4), await seek(4096, 3)] == [0, 4096, 8192]
        assert await allocate(16, 8192, 10) == 0
        assert await allocate(1, 16384, 8192) == 0
        assert fs.inode(number).size == 16384
        assert await allocate(0, 16384, 8192) == 0
        assert await seek(24576, 3) == -1
        assert await allocate(8, 0, 4096) == errno.EOPNOTSUPP

    play(fs, scenario, options)
    zeroed = b"x" * 4096 + bytes(4096 + 10) + b"x" * (8192 - 10) + bytes(8192)
    assert content(fs, number) == zeroed


def test_a_hole_is_believed_only_once_it_was_written_back(fs):
    number = make(fs, b"f", b"x" * 4096)
    fs.write(number, 3 * 4096, b"y")

    async def scenario(kernel: Kernel) -> None:
        answer = await kernel.get(Opcode.LSEEK, pack("=QQII", 0, 4096, 3, 0), number)
        assert answer == pack("=Q", 3 * 4096)

    kernel = play(fs, scenario)
    assert (2, pack("=Qqq", number, 4096, 2 * 4096)) in kernel.notifications


def asked_anew(kernel: Kernel, number: int) -> int:
    """How often the kernel was told to ask for an inode's attributes."""
    return kernel.notifications.count((2, pack("=Qqq", number, -1, 0)))


def test_after_an_fsync_the_kernel_asks_for_the_blocks_of_a_file_that_grew(fs):
    number = make(fs, b"f")

    async def scenario(kernel: Kernel) -> None:
        for offset, told in ((0, 1), (0, 1), (1 << 16, 2)):
            await kernel.get(Opcode.WRITE, write(offset, b"x"), number)
            await kernel.get(Opcode.FSYNC, bytes(16), number)
            assert asked_anew(kernel, number) == told

    play(fs, scenario)


def test_later_the_kernel_asks_for_the_blocks_of_any_file_that_grew(fs, monkeypatch):
    monkeypatch.setattr(block_counts, "_PERIOD_SECONDS", 0.01)
    numbers = [make(fs, b"%d" % each) for each in range(3)]

    async def scenario(kernel: Kernel) -> None:
        for number in numbers:
            await kernel.get(Opcode.WRITE, write(0, b"x"), number)
        while sum(asked_anew(kernel, number) for number in numbers) < 3:
            await kernel.get(Opcode.STATFS)
            await trio.sleep(0.01)

    kernel = play(fs, scenario)
    assert [asked_anew(kernel, number) for number in numbers] == [1, 1, 1]


def test_written_through_the_kernel_knows_the_blocks(fs):
    number = make(fs, b"f")

    async def scenario(kernel: Kernel) -> None:
        await kernel.get(Opcode.WRITE, write(0, b"x"), number)
        await kernel.get(Opcode.FSYNC, bytes(16), number)

    assert not asked_anew(play(fs, scenario, WRITE_THROUGH), number)


def test_ranges_are_copied(fs):
    source, target = make(fs, b"s", b"0123456789" * 1000), make(fs, b"t")
    body = pack("=QQQQQQQ", 0, 5, target, 0, 3, 1 << 62, 0)

    async def scenario(kernel: Kernel) -> None:
        assert await kernel.get(Opcode.COPY_FILE_RANGE, body, source) == pack("=II", 9995, 0)

    play(fs, scenario)
    assert content(fs, target) == bytes(3) + (b"0123456789" * 1000)[5:]


@pytest.mark.parametrize("opcode", [Opcode.FSYNC, Opcode.FSYNCDIR, Opcode.SYNCFS])
def test_syncing_commits(fs, opcode):
    make(fs, b"f", b"data")

    async def scenario(kernel: Kernel) -> None:
        assert await kernel.get(opcode, bytes(16)) == b""
        assert not fs.is_dirty

    play(fs, scenario)


def test_directories_are_listed_in_parts(fs):
    long_names = [(b"n" * (i % 256) + b"%d" % i)[-255:] for i in range(300)]
    made = {name: make(fs, name) for name in long_names}

    async def scenario(kernel: Kernel) -> None:
        for size in (512, 4096, 1 << 16):
            found, after = {}, 0
            while listed := dirents(await kernel.get(Opcode.READDIR, read(after, size))):
                found.update({name: ino for ino, _, _, name in listed})
                after = listed[-1][1]
            assert found == {**made, b".": ROOT, b"..": ROOT}

    play(fs, scenario)


def test_directories_are_listed_with_attributes(fs):
    number = make(fs, b"f", b"12345")

    async def scenario(kernel: Kernel) -> None:
        data = await kernel.get(Opcode.READDIRPLUS, read(0, 4096))
        dots, size = 128 + 32, 128 + 32
        assert len(data) == 2 * dots + size
        assert data[:128] == data[dots : dots + 128] == bytes(128)
        assert data[2 * dots :][:128] == await kernel.get(Opcode.LOOKUP, b"f\0")
        assert dirents(data[2 * dots + 128 :])[0][0] == number
        assert await kernel.get(Opcode.READDIRPLUS, read(0, dots - 1)) == b""

    play(fs, scenario)


def test_attributes_by_name(fs):
    number = make(fs, b"f")

    async def scenario(kernel: Kernel) -> None:
        async def get(name: bytes, size: int) -> tuple[int, bytes]:
            return await kernel.ask(Opcode.GETXATTR, pack("=II", size, 0) + name + b"\0", number)

        body = pack("=IIII", 5, 0, 0, 0) + b"user.a\0a\0b\0c"
        assert await kernel.get(Opcode.SETXATTR, body, number) == b""
        assert await get(b"user.a", 0) == (0, pack("=II", 5, 0))
        assert await get(b"user.a", 5) == (0, b"a\0b\0c")
        assert await get(b"user.a", 4) == (errno.ERANGE, b"")
        assert await get(b"user.b", 0) == (errno.ENODATA, b"")
        assert await kernel.get(Opcode.LISTXATTR, pack("=II", 100, 0), number) == b"user.a\0"
        assert await kernel.get(Opcode.LISTXATTR, pack("=II", 0, 0), number) == pack("=II", 7, 0)
        assert await kernel.get(Opcode.REMOVEXATTR, b"user.a\0", number) == b""
        assert (await kernel.ask(Opcode.REMOVEXATTR, b"user.a\0", number)).error == errno.ENODATA

    play(fs, scenario)


def test_acls_are_refused_where_they_are_switched_off(fs):
    async def scenario(kernel: Kernel) -> None:
        body = pack("=II", 0, 0) + b"system.posix_acl_access\0"
        assert (await kernel.ask(Opcode.GETXATTR, body)).error == errno.EOPNOTSUPP

    play(fs, scenario, MountOptions(acl=False))


def test_statistics(fs):
    async def scenario(kernel: Kernel) -> None:
        answer = await kernel.get(Opcode.STATFS)
        assert unpack_from("=QQQ", answer) == (1024, 1024, 1024)
        assert unpack_from("=III", answer, 40) == (4096, 255, 4096)

    play(fs, scenario)


def test_ioctls_of_flags_find_none_and_others_are_unknown(fs):
    async def scenario(kernel: Kernel) -> None:
        for command, size in ((0x80086601, 8), (0x80046601, 4), (0x801C581F, 28)):
            body = pack("=QIIQII", 0, 0, command, 0, 0, size)
            assert await kernel.get(Opcode.IOCTL, body) == bytes(16 + size)
        body = pack("=QIIQII", 0, 0, 0x5401, 0, 0, 0)
        assert (await kernel.ask(Opcode.IOCTL, body)).error == errno.ENOTTY

    play(fs, scenario)


@pytest.mark.parametrize("opcode", [14, 25, 27, 34, 35, 37, 40, 48, 49, 53, 99, 4096, 1 << 31])
def test_what_is_not_served_is_not_asked_again(fs, opcode):
    # OPEN FLUSH OPENDIR ACCESS CREATE BMAP POLL SETUPMAPPING REMOVEMAPPING COPY_FILE_RANGE_64 …
    async def scenario(kernel: Kernel) -> None:
        assert (await kernel.ask(opcode, bytes(64))).error == errno.ENOSYS

    play(fs, scenario)


@pytest.mark.parametrize("opcode", [Opcode.RELEASE, Opcode.DESTROY])
def test_there_is_nothing_to_release(fs, opcode):
    async def scenario(kernel: Kernel) -> None:
        assert await kernel.get(opcode, bytes(24)) == b""

    play(fs, scenario)


def test_a_size_that_is_not_that_of_the_data_is_refused(fs, caplog):
    number = make(fs, b"f", b"before")
    long_write = pack("=QQIIQII", 0, 0, 100, 0, 0, 0, 0) + b"short"
    long_value = pack("=IIII", 100, 0, 0, 0) + b"user.a\0short"

    async def scenario(kernel: Kernel) -> None:
        for opcode, body in ((Opcode.WRITE, long_write), (Opcode.SETXATTR, long_value)):
            assert (await kernel.ask(opcode, body, number)).error == errno.EINVAL

    play(fs, scenario)
    assert content(fs, number) == b"before"
    assert fs.listxattr(number) == []
    assert "WRITE: malformed request" in caplog.text
