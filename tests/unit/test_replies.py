"""What the wire transport answers, byte for byte."""

import os
import stat
from struct import pack

from mapfs.filesystem.filesystem import Statistics
from mapfs.format.records import Inode, Listed
from mapfs.fuse.wire.replies import ABSENT, Replies, dirent

SECOND = 10**9
FOR_EVER = pack("=Q", 1 << 31)
REPLIES = Replies(16384)
FILE = Inode(
    number=0x1112131415161718,
    mode=0o106751,
    uid=0x21222324,
    gid=0x31323334,
    nlink=0x41424344,
    size=0x5152535455565758,
    pages=3,
    atime=-1,  # a nanosecond before 1970
    mtime=-5 * SECOND,
    ctime=0x61626364 * SECOND + 999_999_999,
    btime=7 * SECOND + 8,
)
# struct fuse_attr of FILE.
FILE_ATTR = b"".join(
    [
        pack("=QQQ", 0x1112131415161718, 0x5152535455565758, 96),  # ino size blocks (of 512 bytes)
        pack("=qqq", -1, -5, 0x61626364),  # atime mtime ctime
        pack("=III", 999_999_999, 0, 999_999_999),  # their nanoseconds count upwards
        pack("=IIII", 0o106751, 0x41424344, 0x21222324, 0x31323334),  # mode nlink uid gid
        pack("=III", 0, 4096, 0),  # rdev blksize flags
    ]
)


DIRECTORY = Inode(number=2, mode=stat.S_IFDIR | 0o755, uid=0, gid=0, size=17)


def test_attributes():
    assert REPLIES.attributes(FILE) == FOR_EVER + bytes(8) + FILE_ATTR


def test_an_entry():
    nodeid, generation = pack("=Q", FILE.number), bytes(8)
    assert REPLIES.entry(FILE) == nodeid + generation + FOR_EVER * 2 + bytes(8) + FILE_ATTR


def test_no_entry():
    assert bytes(16) + FOR_EVER + bytes(8 + 8 + 88) == ABSENT


def test_a_directory_has_no_bytes():
    assert REPLIES.attributes(DIRECTORY)[24:32] == bytes(8)
    assert REPLIES.statx(DIRECTORY)[72:80] == bytes(8)


def test_a_device_number():
    number = os.makedev(0xABC, 0x12345)
    device = Inode(number=2, mode=stat.S_IFBLK, uid=0, gid=0, rdev=number)
    # new_encode_dev of linux/kdev_t.h: minor 7:0, major 11:0, minor 19:8.
    assert REPLIES.attributes(device)[16 + 76 : 16 + 80] == pack("=I", 0x123ABC45)
    assert REPLIES.statx(device)[160:168] == pack("=II", 0xABC, 0x12345)


def test_statx():
    times = (-1, 999_999_999, 7, 8, 0x61626364, 999_999_999, -5, 0)  # atime btime ctime mtime
    assert REPLIES.statx(FILE) == b"".join(
        [
            FOR_EVER + bytes(8 + 16),
            pack("=IIQ", 0xFFF, 4096, 0),  # STATX_BASIC_STATS | STATX_BTIME, blksize, attributes
            pack("=IIIHH", 0x41424344, 0x21222324, 0x31323334, 0o106751, 0),
            pack("=QQQQ", 0x1112131415161718, 0x5152535455565758, 96, 0),
            pack("=qI4xqI4xqI4xqI4x", *times),
            pack("=IIII", 0, 0, 0, 0),
            bytes(14 * 8),
        ]
    )


def test_statistics():
    found = Statistics(16384, total_pages=100, free_pages=60, inodes=7, free_inodes=50)
    assert REPLIES.statistics(found) == b"".join(
        [
            pack("=QQQQQ", 100, 60, 60, 57, 50),  # blocks bfree bavail files ffree
            pack("=III", 16384, 255, 16384),  # bsize namelen frsize
            bytes(4 + 24),
        ]
    )


def test_an_entry_of_a_listing():
    entry = Listed(0x0102030405060708, 0x1112131415161718, stat.S_IFLNK, b"name")
    head = pack("=QQII", 0x1112131415161718, 0x0102030405060708, 4, 10)  # DT_LNK
    assert dirent(entry) == head + b"name\0\0\0\0"


def test_names_are_padded_to_eight_bytes():
    for length in (1, 7, 8, 9, 16, 254, 255):
        packed = dirent(Listed(3, 2, stat.S_IFREG, b"x" * length))
        assert packed[16:24] == pack("=II", length, 8)
        assert len(packed) % 8 == 0
        assert packed[24:].rstrip(b"\0") == b"x" * length
        assert len(packed) - 24 - length < 8


def test_types_of_entries():
    kinds = {
        stat.S_IFIFO: 1,
        stat.S_IFCHR: 2,
        stat.S_IFDIR: 4,
        stat.S_IFBLK: 6,
        stat.S_IFREG: 8,
        stat.S_IFLNK: 10,
        stat.S_IFSOCK: 12,
    }
    for kind, number in kinds.items():
        assert dirent(Listed(3, 2, kind, b"x"))[20:24] == pack("=I", number)


def test_an_entry_of_a_listing_with_attributes():
    entry = Listed(3, FILE.number, stat.S_IFREG, b"n" * 255)
    assert REPLIES.listed(entry, FILE) == REPLIES.entry(FILE) + dirent(entry)


def test_the_dots_have_no_attributes_in_a_listing():
    # A nodeid of 0: the kernel takes no reference (`fuse_direntplus_link` in fs/fuse/readdir.c).
    for name in (b".", b".."):
        entry = Listed(1, 2, stat.S_IFDIR, name)
        assert REPLIES.listed(entry, DIRECTORY) == bytes(128) + dirent(entry)
