"""No byte of one file is ever seen in another, however the host prepares pages."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapfs.errors import NoSpaceError
from mapfs.filesystem.caller import Caller
from mapfs.filesystem.filesystem import Changes, Filesystem
from mapfs.format.superblock import HEADER_BYTES
from mapfs.store import mapped_file
from mapfs.store.opening import ephemeral_store
from mapfs.store.syscalls import FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE, fallocate

PAGE, PAGES, ROOT = 4096, 20, 1
ME = Caller(0, 0)
KEEP = 1

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["write", "write", "delete", "truncate", "punch", "allocate", "zero", "commit", "begin"]
        ),
        st.integers(0, 3),  # which file
        st.integers(0, 6 * PAGE),  # offset
        st.integers(1, 3 * PAGE),  # length
    ),
    max_size=40,
)
Steps = list[tuple[str, int, int, int]]
LACKS = {
    "everything supported": (),
    "no zero range": (FALLOC_FL_ZERO_RANGE,),
    "no punching": (FALLOC_FL_ZERO_RANGE, FALLOC_FL_PUNCH_HOLE),
}


class Writers:
    """Four files at a time; each writes one byte value, never used before."""

    def __init__(self) -> None:
        self.fs = Filesystem(ephemeral_store(HEADER_BYTES + PAGES * PAGE, PAGE))
        self.files: dict[int, tuple[int, int]] = {}
        self.fills = iter(range(1, 256))
        self.commit: object = None

    def file(self, which: int) -> tuple[int, int]:
        """The number and the byte of a file, made if it is not there."""
        if which not in self.files:
            inode = self.fs.create(ROOT, b"%d" % which, 0o644, ME)
            self.files[which] = inode.number, next(self.fills)
        return self.files[which]

    def step(self, what: str, which: int, offset: int, length: int) -> None:
        number, fill = self.file(which)
        if what == "write":
            self.fs.write(number, offset, bytes([fill]) * length)
        elif what == "delete":
            self.fs.unlink(ROOT, b"%d" % which)
            self.fs.forget(number)
            del self.files[which]
        elif what == "truncate":
            self.fs.setattr(number, Changes(size=offset))
        elif what in ("punch", "allocate", "zero"):
            mode = {"punch": 3, "allocate": KEEP, "zero": 0x10}[what]
            self.fs.fallocate(number, mode, offset, length)
        elif what == "commit":
            self.end_commit()
            self.fs.commit()
        elif self.commit is None:
            self.commit = self.fs.begin_commit()
        else:
            self.end_commit()

    def end_commit(self) -> None:
        if self.commit is not None:
            self.commit.write()  # type: ignore[attr-defined]
            self.fs.end_commit(succeeded=True)
            self.commit = None

    def look(self) -> None:
        """Every byte of each file, also behind its end, is its own or zero."""
        for number, fill in self.files.values():
            seen = set(b"".join(self.fs.read(number, 0, 1 << 20)))
            for mapping in self.fs._extents.mappings(number):
                where = mapping.start * PAGE, mapping.count * PAGE
                seen |= set(b"".join(self.fs.store.backing.read(*where)))
            assert seen <= {0, fill}


@pytest.mark.parametrize("lacks", LACKS.values(), ids=LACKS)
@given(steps=STEPS)
def test_no_file_sees_the_bytes_of_another(lacks: tuple[int, ...], steps: Steps) -> None:
    def limited(fd: int, mode: int, offset: int, length: int) -> None:
        if mode & ~KEEP in lacks:
            raise OSError(errno.EOPNOTSUPP, "cannot")
        fallocate(fd, mode, offset, length)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapped_file, "fallocate", limited)
        writers = Writers()
        try:
            for step in steps:
                try:
                    writers.step(*step)
                except NoSpaceError:
                    writers.end_commit()
                    writers.fs.commit()
                writers.look()
        finally:
            writers.end_commit()
            writers.fs.close()
