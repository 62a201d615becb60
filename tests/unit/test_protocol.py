"""The structures and constants of the wire protocol, against those of `linux/fuse.h`."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

import pytest

from mapfs.fuse.wire import protocol
from mapfs.fuse.wire.protocol import Init, Notify, Opcode

# Every structure, as fuse.h (7.45) has it: the C name, its size, and the Structs that read its
# head or pack all of it; then offset, size and name of each field. Fields in parentheses mean
# nothing to mapfs. `7.x` marks what the header has only from that version on.
LAYOUTS: Final = """
fuse_attr 88 ATTR
    0 8 ino
    8 8 size
    16 8 blocks
    24 8 atime
    32 8 mtime
    40 8 ctime
    48 4 atimensec
    52 4 mtimensec
    56 4 ctimensec
    60 4 mode
    64 4 nlink
    68 4 uid
    72 4 gid
    76 4 rdev
    80 4 blksize
    84 4 (flags) 7.32
fuse_entry_out 128 ENTRY_OUT
    0 8 nodeid
    8 8 (generation)
    16 8 entry_valid
    24 8 attr_valid
    32 4 (entry_valid_nsec)
    36 4 (attr_valid_nsec)
    40 88 attr=fuse_attr
fuse_attr_out 104 ATTR_OUT
    0 8 attr_valid
    8 4 (attr_valid_nsec)
    12 4 (dummy)
    16 88 attr=fuse_attr
fuse_in_header 40 IN_HEADER
    0 4 len
    4 4 opcode
    8 8 unique
    16 8 nodeid
    24 4 uid
    28 4 gid
    32 4 pid
    36 2 (total_extlen) 7.38
    38 2 (padding) 7.38
fuse_out_header 16 OUT_HEADER
    0 4 len
    4 4 error
    8 8 unique
fuse_init_in 64 INIT_IN INIT_IN_FLAGS2
    0 4 major
    4 4 minor
    8 4 max_readahead
    12 4 flags
    16 4 flags2 7.36
    20 44 (unused) 7.36
fuse_init_out 64 INIT_OUT
    0 4 major
    4 4 minor
    8 4 max_readahead
    12 4 flags
    16 2 max_background
    18 2 congestion_threshold
    20 4 max_write
    24 4 time_gran
    28 2 max_pages
    30 2 (map_alignment)
    32 4 flags2 7.36
    36 4 (max_stack_depth) 7.40
    40 2 (request_timeout) 7.43
    42 22 (unused) 7.43
fuse_forget_in 8 FORGET_IN
    0 8 nlookup
fuse_batch_forget_in 8 BATCH_FORGET_IN
    0 4 count
    4 4 (dummy)
fuse_forget_one 16 FORGET_ONE
    0 8 nodeid
    8 8 nlookup
fuse_setattr_in 88 SETATTR_IN
    0 4 valid
    4 4 (padding)
    8 8 (fh)
    16 8 size
    24 8 (lock_owner)
    32 8 atime
    40 8 mtime
    48 8 ctime
    56 4 atimensec
    60 4 mtimensec
    64 4 ctimensec
    68 4 mode
    72 4 (unused4)
    76 4 uid
    80 4 gid
    84 4 (unused5)
fuse_mknod_in 16 MKNOD_IN
    0 4 mode
    4 4 rdev
    8 4 umask
    12 4 (padding)
fuse_mkdir_in 8 MKDIR_IN
    0 4 mode
    4 4 umask
fuse_rename_in 8 RENAME_IN
    0 8 newdir
fuse_rename2_in 16 RENAME2_IN
    0 8 newdir
    8 4 flags
    12 4 (padding)
fuse_link_in 8 LINK_IN
    0 8 oldnodeid
fuse_create_in 16 CREATE_IN
    0 4 (flags)
    4 4 mode
    8 4 umask
    12 4 (open_flags) 7.33
fuse_open_out 16 OPEN_OUT
    0 8 (fh)
    8 4 (open_flags)
    12 4 (backing_id) 7.40
fuse_read_in 40 READ_IN
    0 8 (fh)
    8 8 offset
    16 4 size
    20 4 (read_flags)
    24 8 (lock_owner)
    32 4 flags
    36 4 (padding)
fuse_write_in 40 WRITE_IN
    0 8 (fh)
    8 8 offset
    16 4 size
    20 4 write_flags
    24 8 (lock_owner)
    32 4 (flags)
    36 4 (padding)
fuse_write_out 8 WRITE_OUT
    0 4 size
    4 4 (padding)
fuse_fsync_in 16 FSYNC_IN
    0 8 (fh)
    8 4 fsync_flags
    12 4 (padding)
fuse_fallocate_in 32 FALLOCATE_IN
    0 8 (fh)
    8 8 offset
    16 8 length
    24 4 mode
    28 4 (padding)
fuse_lseek_in 24 LSEEK_IN
    0 8 (fh)
    8 8 offset
    16 4 whence
    20 4 (padding)
fuse_lseek_out 8 LSEEK_OUT
    0 8 offset
fuse_copy_file_range_in 56 COPY_FILE_RANGE_IN
    0 8 (fh_in)
    8 8 off_in
    16 8 nodeid_out
    24 8 (fh_out)
    32 8 off_out
    40 8 len
    48 8 flags
fuse_setxattr_in 16 SETXATTR_EXT_IN
    0 4 size
    4 4 flags
    8 4 setxattr_flags 7.33
    12 4 (padding) 7.33
fuse_setxattr_in 16 SETXATTR_IN
    0 4 size
    4 4 flags
    8 4 (setxattr_flags) 7.33
    12 4 (padding) 7.33
fuse_getxattr_in 8 GETXATTR_IN
    0 4 size
    4 4 (padding)
fuse_getxattr_out 8 GETXATTR_OUT
    0 4 size
    4 4 (padding)
fuse_kstatfs 80 STATFS_OUT
    0 8 blocks
    8 8 bfree
    16 8 bavail
    24 8 files
    32 8 ffree
    40 4 bsize
    44 4 namelen
    48 4 frsize
    52 4 (padding)
    56 24 (spare)
fuse_dirent 24 DIRENT
    0 8 ino
    8 8 off
    16 4 namelen
    20 4 type
fuse_statx_out 288 STATX_OUT 7.39
    0 8 attr_valid
    8 4 (attr_valid_nsec)
    12 4 (flags)
    16 16 (spare)
    32 4 stat.mask
    36 4 stat.blksize
    40 8 (stat.attributes)
    48 4 stat.nlink
    52 4 stat.uid
    56 4 stat.gid
    60 2 stat.mode
    62 2 (stat.__spare0)
    64 8 stat.ino
    72 8 stat.size
    80 8 stat.blocks
    88 8 (stat.attributes_mask)
    96 8 stat.atime.tv_sec
    104 4 stat.atime.tv_nsec
    108 4 (stat.atime.__reserved)
    112 8 stat.btime.tv_sec
    120 4 stat.btime.tv_nsec
    124 4 (stat.btime.__reserved)
    128 8 stat.ctime.tv_sec
    136 4 stat.ctime.tv_nsec
    140 4 (stat.ctime.__reserved)
    144 8 stat.mtime.tv_sec
    152 4 stat.mtime.tv_nsec
    156 4 (stat.mtime.__reserved)
    160 4 stat.rdev_major
    164 4 stat.rdev_minor
    168 4 (stat.dev_major)
    172 4 (stat.dev_minor)
    176 112 (stat.__spare2)
fuse_ioctl_in 32 IOCTL_IN
    0 8 (fh)
    8 4 (flags)
    12 4 cmd
    16 8 (arg)
    24 4 (in_size)
    28 4 out_size
fuse_ioctl_out 16 IOCTL_OUT
    0 4 result
    4 4 (flags)
    8 4 (in_iovs)
    12 4 (out_iovs)
fuse_notify_inval_inode_out 24 NOTIFY_INVAL_INODE_OUT
    0 8 ino
    8 8 off
    16 8 len
"""

OPCODES: Final = {
    "LOOKUP": 1, "FORGET": 2, "GETATTR": 3, "SETATTR": 4, "READLINK": 5, "SYMLINK": 6, "MKNOD": 8,
    "MKDIR": 9, "UNLINK": 10, "RMDIR": 11, "RENAME": 12, "LINK": 13, "OPEN": 14, "READ": 15,
    "WRITE": 16, "STATFS": 17, "RELEASE": 18, "FSYNC": 20, "SETXATTR": 21, "GETXATTR": 22,
    "LISTXATTR": 23, "REMOVEXATTR": 24, "FLUSH": 25, "INIT": 26, "OPENDIR": 27, "READDIR": 28,
    "RELEASEDIR": 29, "FSYNCDIR": 30, "ACCESS": 34, "CREATE": 35, "INTERRUPT": 36, "DESTROY": 38,
    "IOCTL": 39, "BATCH_FORGET": 42, "FALLOCATE": 43, "READDIRPLUS": 44, "RENAME2": 45,
    "LSEEK": 46, "COPY_FILE_RANGE": 47, "SYNCFS": 50, "TMPFILE": 51, "STATX": 52,
}  # fmt: skip
NOTIFY_CODES: Final = {"INVAL_INODE": 2, "RESEND": 7}
INIT_FLAGS: Final = {
    "ASYNC_READ": 0x1, "EXPORT_SUPPORT": 0x10, "BIG_WRITES": 0x20, "DONT_MASK": 0x40,
    "HAS_IOCTL_DIR": 0x800, "DO_READDIRPLUS": 0x2000, "READDIRPLUS_AUTO": 0x4000,
    "ASYNC_DIO": 0x8000, "WRITEBACK_CACHE": 0x1_0000, "NO_OPEN_SUPPORT": 0x2_0000,
    "PARALLEL_DIROPS": 0x4_0000, "POSIX_ACL": 0x10_0000, "ABORT_ERROR": 0x20_0000,
    "MAX_PAGES": 0x40_0000, "CACHE_SYMLINKS": 0x80_0000, "NO_OPENDIR_SUPPORT": 0x100_0000,
    "HANDLE_KILLPRIV_V2": 0x1000_0000, "SETXATTR_EXT": 0x2000_0000, "INIT_EXT": 0x4000_0000,
    "HAS_RESEND": 0x80_0000_0000,
}  # fmt: skip
SETATTR_FLAGS: Final = {
    "MODE": 0x1, "UID": 0x2, "GID": 0x4, "SIZE": 0x8, "ATIME": 0x10, "MTIME": 0x20,
    "ATIME_NOW": 0x80, "MTIME_NOW": 0x100, "CTIME": 0x400, "KILL_SUIDGID": 0x800,
}  # fmt: skip
OTHERS: Final = {
    "FUSE_WRITE_KILL_SUIDGID": 4,
    "FUSE_FSYNC_FDATASYNC": 1,
    "FUSE_SETXATTR_ACL_KILL_SGID": 1,
    "FUSE_UNIQUE_RESEND": 0x8000_0000_0000_0000,
}
# The version of the header from which on it has an enumerator; macros can be asked for.
SINCE: Final = {"FUSE_SYNCFS": 34, "FUSE_TMPFILE": 37, "FUSE_STATX": 39, "FUSE_NOTIFY_RESEND": 40}

HEADER: Final = Path("/usr/include/linux/fuse.h")


class CField(NamedTuple):
    """A field of a C structure; `since` is the minor version that brought it."""

    offset: int
    size: int
    name: str
    used: bool
    since: int


class Layout(NamedTuple):
    """A C structure, and the names of the Structs that stand for it one after the other."""

    name: str
    size: int
    structs: tuple[str, ...]
    since: int
    fields: tuple[CField, ...]

    @property
    def python_size(self) -> int:
        return sum(struct.size for struct in self.parts())

    def parts(self) -> list[Struct]:
        return [getattr(protocol, name) for name in self.structs]


def since_of(words: list[str]) -> tuple[list[str], int]:
    if words[-1].startswith("7."):
        return words[:-1], int(words[-1].removeprefix("7."))
    return words, 0


def parse() -> list[Layout]:
    layouts: list[Layout] = []
    for block in re.split(r"\n(?=\w)", LAYOUTS.strip()):
        head, *lines = block.splitlines()
        (name, size, *structs), since = since_of(head.split())
        fields: list[CField] = []
        for line in lines:
            (offset, length, field), field_since = since_of(line.split())
            if "=" in field:
                prefix, inner = field.split("=")
                fields += [
                    each._replace(offset=each.offset + int(offset), name=f"{prefix}.{each.name}")
                    for layout in layouts
                    if layout.name == inner
                    for each in layout.fields
                ]
                continue
            used = not field.startswith("(")
            fields.append(CField(int(offset), int(length), field.strip("()"), used, field_since))
        layouts.append(Layout(name, int(size), tuple(structs), since, tuple(fields)))
    return layouts


LAYOUT_LIST: Final = parse()
IDS: Final = [layout.structs[0] for layout in LAYOUT_LIST]


def golden(layout: Layout, *, ignored: bool = True) -> bytes:
    """The structure with another value in each field; what is ignored may be left zero."""
    data = bytearray()
    for number, field in enumerate(layout.fields):
        # The highest bit of each byte is clear: signed and unsigned agree.
        value = bytes((number * 8 + i) % 127 + 1 for i in range(field.size))
        data += value if field.used or ignored else bytes(field.size)
    return bytes(data)


def used_values(layout: Layout, data: bytes) -> list[int]:
    return [
        int.from_bytes(data[field.offset : field.offset + field.size], sys.byteorder)
        for field in layout.fields
        if field.used
    ]


@pytest.mark.parametrize("layout", LAYOUT_LIST, ids=IDS)
def test_fields_follow_each_other_without_gaps(layout: Layout) -> None:
    ends = [field.offset + field.size for field in layout.fields]
    assert [field.offset for field in layout.fields] == [0, *ends[:-1]]
    assert ends[-1] == layout.size
    values = used_values(layout, golden(layout))
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("layout", LAYOUT_LIST, ids=IDS)
def test_structures_are_taken_apart_as_in_c(layout: Layout) -> None:
    data = golden(layout)
    found: list[int] = []
    start = 0
    for struct in layout.parts():
        found += struct.unpack_from(data, start)
        start += struct.size
    assert found == used_values(layout, data)


@pytest.mark.parametrize("layout", LAYOUT_LIST, ids=IDS)
def test_structures_are_put_together_as_in_c(layout: Layout) -> None:
    values = iter(used_values(layout, golden(layout)))
    packed = b"".join(
        struct.pack(*(next(values) for _ in struct.unpack(bytes(struct.size))))
        for struct in layout.parts()
    )
    assert packed == golden(layout, ignored=False)[: layout.python_size]


@pytest.mark.parametrize("layout", LAYOUT_LIST, ids=IDS)
def test_structures_have_their_size(layout: Layout) -> None:
    # INIT_IN and SETXATTR_IN have grown at their end: the head is what older kernels send.
    heads = {"INIT_IN": 20, "SETXATTR_IN": 8}
    assert layout.python_size == heads.get(layout.structs[0], layout.size)


def test_every_structure_is_in_the_table() -> None:
    ours = {name for name, value in vars(protocol).items() if isinstance(value, Struct)}
    assert ours == {name for layout in LAYOUT_LIST for name in layout.structs}


def test_signed_fields() -> None:
    assert protocol.OUT_HEADER.pack(16, -2, 3)[4:8] == b"\xfe\xff\xff\xff"
    attr = protocol.ATTR.pack(0, 0, 0, -1, -2, -3, *[0] * 9)
    assert attr[24:48].hex() == "ff" * 8 + "fe" + "ff" * 7 + "fd" + "ff" * 7
    body = bytes(32) + b"\xff" * 24 + bytes(32)
    assert protocol.SETATTR_IN.unpack(body)[2:5] == (-1, -1, -1)
    statx = protocol.STATX_OUT.pack(*[0] * 10, -1, 5, *[0] * 8)
    assert statx[96:108] == b"\xff" * 8 + b"\x05\0\0\0"


def test_opcodes() -> None:
    assert {each.name: each.value for each in Opcode} == OPCODES


def test_notify_codes() -> None:
    assert {each.name: each.value for each in Notify} == NOTIFY_CODES


def test_init_flags() -> None:
    assert {each.name: each.value for each in Init} == INIT_FLAGS


def test_setattr_flags() -> None:
    named = {name: value for name, value in vars(protocol).items() if name.startswith("FATTR_")}
    assert named == {f"FATTR_{name}": value for name, value in SETATTR_FLAGS.items()}


def test_other_flags() -> None:
    assert {name: getattr(protocol, name) for name in OTHERS} == OTHERS
    assert {name for name in vars(protocol) if name.startswith("FUSE_")} == set(OTHERS)


def test_version() -> None:
    assert (protocol.MAJOR, protocol.MINOR, protocol.LEAST_MINOR) == (7, 45, 31)


def constants() -> dict[str, int]:
    """All constants under their C names."""
    return {
        **{f"FUSE_{name}": value for name, value in OPCODES.items()},
        **{f"FUSE_NOTIFY_{name}": value for name, value in NOTIFY_CODES.items()},
        **{f"FUSE_{name}": value for name, value in INIT_FLAGS.items()},
        **{f"FATTR_{name}": value for name, value in SETATTR_FLAGS.items()},
        **OTHERS,
    }


def enumerators() -> set[str]:
    return {
        *(f"FUSE_{name}" for name in OPCODES),
        *(f"FUSE_NOTIFY_{name}" for name in NOTIFY_CODES),
    }


def questions(minor: int) -> list[str]:
    """Lines of C that print what the table says, as far as the header of this version has it."""
    lines: list[str] = []
    for layout in LAYOUT_LIST:
        struct = f"struct {layout.name}"
        if layout.since > minor:
            continue
        lines.append(f'printf("{layout.name} %zu\\n", sizeof({struct}));')
        lines += [
            f'printf("{layout.name}.{field.name} %zu %zu\\n",'
            f" offsetof({struct}, {field.name}), sizeof((({struct} *)0)->{field.name}));"
            for field in layout.fields
            if field.since <= minor
        ]
    for name in constants():
        line = f'printf("{name} %llu\\n", (unsigned long long){name});'
        if name not in enumerators():
            line = f"\n#ifdef {name}\n{line}\n#endif\n"
        if SINCE.get(name, 0) <= minor:
            lines.append(line)
    return lines


def answers() -> set[str]:
    """What the table says, in the words of the program; all versions."""
    lines = {f"{layout.name} {layout.size}" for layout in LAYOUT_LIST}
    for layout in LAYOUT_LIST:
        lines |= {f"{layout.name}.{each.name} {each.offset} {each.size}" for each in layout.fields}
    return lines | {f"{name} {value}" for name, value in constants().items()}


@pytest.mark.skipif(
    not HEADER.exists() or shutil.which("gcc") is None, reason="needs gcc and linux/fuse.h"
)
def test_the_header_of_this_machine_agrees(tmp_path: Path) -> None:
    found = re.search(r"#define FUSE_KERNEL_MINOR_VERSION (\d+)", HEADER.read_text())
    assert found is not None
    program = "\n".join(
        [
            "#include <stddef.h>",
            "#include <stdio.h>",
            "#include <linux/fuse.h>",
            "int main(void) {",
            *questions(int(found[1])),
            "return 0; }",
        ]
    )
    source = tmp_path / "layout.c"
    source.write_text(program)
    subprocess.run(["gcc", "-o", tmp_path / "layout", source], check=True)
    printed = subprocess.run(
        [tmp_path / "layout"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert len(printed) > 150
    # What grew since is as long as it is now only in the header of now.
    assert set(printed) <= answers() | {"fuse_setxattr_in 8", "fuse_init_in 16"}
