"""Advice: what is set, inherited, kept, and asked of the backing."""

import errno
import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from mapfs.errors import (
    ExistsError,
    InvalidArgumentError,
    NoAttributeError,
    NotPermittedError,
    PinLimitError,
)
from mapfs.filesystem.advice import ADVICE
from mapfs.filesystem.caller import Caller
from mapfs.filesystem.filesystem import Changes, Filesystem, Listing
from mapfs.format.records import Advice, Inode
from mapfs.store.mapped_file import MappedFile
from mapfs.store.pins import Pins
from tests.posix.child import in_child
from tests.unit.support import ME, PAGE, ROOT, assert_sound, content, make, memory_store, open_fs

WORDS = [b"normal", b"sequential", b"random", b"willneed", b"dontneed", b"hugepage", b"pin"]
MIB = 1 << 20


def advise(fs: Filesystem, number: int, word: bytes, caller: Caller | None = None) -> None:
    """Set an advice and see to it, as a transport does."""
    fs.setxattr(number, ADVICE, word, caller=caller)
    work = fs.advice_work(number)
    if work is not None:
        work()


def locked_bytes() -> int:
    """What this process has locked in memory (proc_pid_status(5))."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmLck"))


@pytest.fixture
def fs(bundle: Path) -> Iterator[Filesystem]:
    """A filesystem on a bundle, sound at the end."""
    fs = open_fs(bundle)
    yield fs
    assert_sound(fs)
    fs.close()


# What is kept


@pytest.mark.parametrize("word", WORDS)
def test_an_advice_is_kept(bundle: Path, word: bytes) -> None:
    fs = open_fs(bundle)
    number = make(fs, b"a", b"x" * 2 * PAGE)
    assert fs.getxattr(number, ADVICE) == b"normal"
    advise(fs, number, word)
    assert fs.getxattr(number, ADVICE) == word
    fs.store.close()  # killed: the log has it
    fs = open_fs(bundle)
    assert fs.getxattr(number, ADVICE) == word
    assert_sound(fs)
    fs.close()
    fs = open_fs(bundle)
    assert content(fs, number) == b"x" * 2 * PAGE
    assert fs.advice(number).name.lower().encode() == word
    fs.removexattr(number, ADVICE)
    assert fs.getxattr(number, ADVICE) == b"normal"
    assert_sound(fs)
    fs.close()


def test_what_is_no_advice(fs: Filesystem) -> None:
    number = make(fs, b"a")
    for value in (b"", b"Normal", b"normal\0", b"x" * 1000):
        with pytest.raises(InvalidArgumentError):
            fs.setxattr(number, ADVICE, value)
    with pytest.raises(ExistsError):
        fs.setxattr(number, ADVICE, b"random", os.XATTR_CREATE)
    fs.setxattr(number, ADVICE, b"random", os.XATTR_REPLACE)
    assert fs.getxattr(number, ADVICE) == b"random"
    link = fs.symlink(ROOT, b"l", b"a", ME).number
    fifo = fs.create(ROOT, b"p", stat.S_IFIFO | 0o644, ME).number
    for other in (link, fifo):
        for call in (fs.getxattr, fs.removexattr):
            with pytest.raises(NoAttributeError):
                call(other, ADVICE)
        with pytest.raises(NoAttributeError):
            fs.setxattr(other, ADVICE, b"random")


def test_it_is_listed_as_the_other_virtual_attributes_are() -> None:
    for listing, listed in ((Listing.HIDDEN, False), (Listing.ALWAYS, True)):
        fs = Filesystem(memory_store(), listing=listing)
        number = make(fs, b"a")
        fs.setxattr(number, ADVICE, b"random")
        assert (ADVICE in fs.listxattr(number)) is listed
        fs.close()


def test_it_changes_the_ctime(fs: Filesystem) -> None:
    number = make(fs, b"a")
    fs.setattr(number, Changes(ctime=1))
    fs.setxattr(number, ADVICE, b"random")
    assert fs.inode(number).ctime > 1


def test_a_directory_hands_it_down(fs: Filesystem) -> None:
    top = fs.mkdir(ROOT, b"d", 0o755, ME).number
    before = make(fs, b"before", parent=top)
    advise(fs, top, b"sequential")
    below = fs.mkdir(top, b"e", 0o755, ME).number
    made = [make(fs, b"f", parent=top), make(fs, b"g", parent=below), below]
    made.append(fs.create_unnamed(below, 0o644, ME).number)
    assert [fs.advice(number) for number in made] == [Advice.SEQUENTIAL] * 4
    assert fs.advice(before) is Advice.NORMAL
    link = fs.symlink(top, b"l", b"f", ME)
    assert link.flags == 0
    fs.removexattr(top, ADVICE)
    assert fs.advice(make(fs, b"h", parent=top)) is Advice.NORMAL
    assert fs.advice(below) is Advice.SEQUENTIAL


def test_flags_hold_attributes_and_an_advice() -> None:
    inode = Inode(16, stat.S_IFREG, 0, 0, flags=1)
    for advice in Advice:
        inode.advice = advice
        again = Inode.unpack(16, inode.pack())
        assert again.advice is advice
        assert again.flags & 1
    inode.flags = 0xFF01
    assert inode.advice is Advice.NORMAL


def test_who_may_pin(fs: Filesystem) -> None:
    number = make(fs, b"a", b"x")
    with pytest.raises(NotPermittedError):
        advise(fs, number, b"pin", Caller(os.geteuid() + 1000, 0))
    assert fs.advice(number) is Advice.NORMAL
    for uid in (0, os.geteuid()):
        advise(fs, number, b"pin", Caller(uid, 0))
        advise(fs, number, b"random", Caller(uid + 1000, 0))


# What is done about it


def test_pinned_pages_are_locked_until_they_are_not(fs: Filesystem) -> None:
    number = make(fs, b"a", b"x" * 10 * PAGE)
    before = locked_bytes()
    advise(fs, number, b"pin")
    assert locked_bytes() == before + 10 * PAGE
    advise(fs, number, b"pin")
    assert locked_bytes() == before + 10 * PAGE
    fs.setattr(number, Changes(size=8 * PAGE))
    assert locked_bytes() == before + 8 * PAGE
    fs.fallocate(number, 3, 2 * PAGE, PAGE)  # PUNCH_HOLE | KEEP_SIZE
    assert locked_bytes() == before + 7 * PAGE
    fs.write(number, 8 * PAGE, b"y" * 4 * PAGE)
    loader = fs.cold_loader(number, 0, 1)
    assert loader is not None  # takes up what was added
    loader()
    assert locked_bytes() == before + 11 * PAGE
    assert fs.cold_loader(number, 0, 1) is None
    advise(fs, number, b"normal")
    assert locked_bytes() == before
    advise(fs, number, b"pin")
    fs.unlink(ROOT, b"a")
    fs.forget(number)
    assert locked_bytes() == before


def test_pins_are_taken_up_by_the_next_process(bundle: Path) -> None:
    fs = open_fs(bundle)
    number = make(fs, b"a", b"x" * 10 * PAGE)
    advise(fs, number, b"pin")
    before = locked_bytes() - 10 * PAGE
    fs.close()
    assert locked_bytes() == before
    fs = open_fs(bundle)
    assert locked_bytes() == before
    loader = fs.cold_loader(number, 3 * PAGE, 1)
    assert loader is not None
    assert loader.run is None
    loader()
    assert locked_bytes() == before + 10 * PAGE
    fs.close()
    assert locked_bytes() == before


def test_pins_are_bounded(bundle: Path) -> None:
    fs = open_fs(bundle)
    number = make(fs, b"a", b"x" * MIB)
    fs.setxattr(number, ADVICE, b"random")
    fs.close()

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (64 << 10, 64 << 10))
        if os.geteuid() == 0:
            os.chown(bundle, 1000, 1000)
            for file in bundle.iterdir():
                os.chown(file, 1000, 1000)
            os.chmod(bundle.parent, 0o755)
            os.chdir(bundle.parent)
            os.setresuid(1000, 1000, 1000)
        fs = open_fs(Path(bundle.name))
        with pytest.raises(PinLimitError) as caught:
            advise(fs, number, b"pin")
        assert caught.value.errno == errno.ENOMEM
        assert fs.getxattr(number, ADVICE) == b"random"
        assert locked_bytes() == 0
        small = make(fs, b"b", b"y" * 4 * PAGE)
        advise(fs, small, b"pin")
        assert locked_bytes() == 4 * PAGE
        fs.write(small, 4 * PAGE, b"y" * MIB)
        loader = fs.cold_loader(small, 0, 1)
        assert loader is None or loader.first is None  # does not fit: reading goes on
        assert content(fs, small, 0, 5) == b"yyyyy"
        fs.close()

    in_child(limited)


def test_pins_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(64 * PAGE))
    with path.open("rb") as file:
        pins = Pins(file.fileno())
        before = locked_bytes()
        pins.pin(0, 10 * PAGE)
        pins.pin(5 * PAGE, 10 * PAGE)
        assert (len(pins._mappings), pins.mapped_bytes) == (2, 15 * PAGE)
        pins.hold(0, 64 * PAGE)
        pins.unpin(3 * PAGE, 4 * PAGE)
        assert (len(pins._mappings), pins.mapped_bytes) == (3, 11 * PAGE)
        assert locked_bytes() == before + 11 * PAGE
        pins.unpin(20 * PAGE, PAGE)
        pins.close()
        assert (len(pins._mappings), locked_bytes()) == (0, before)


def test_what_is_asked_of_the_backing(forgetful_host: None, fs: Filesystem) -> None:
    backing = fs.store.backing
    assert isinstance(backing, MappedFile)
    number = make(fs, b"a", b"x" * MIB)
    (piece,) = fs.layout(number).pieces
    fs.commit()

    def resident() -> int:
        return int(fs.getxattr(number, b"user.mapfs.file.resident"))

    content(fs, number)  # mapped, which keeps pages in memory
    advise(fs, number, b"dontneed")
    assert resident() == 0
    advise(fs, number, b"willneed")
    backing.load(piece.store_offset, MIB)  # willneed does not wait
    assert resident() == MIB
    fs.setxattr(number, ADVICE, b"random")
    backing.drop(piece.store_offset, MIB)
    loader = fs.cold_loader(number, 10 * PAGE, PAGE)
    assert loader is not None
    assert not loader.ahead
    loader()
    assert resident() == PAGE
    fs.setxattr(number, ADVICE, b"sequential")
    loader = fs.cold_loader(number, 0, PAGE)
    assert loader is not None
    assert loader.behind == [(piece.store_offset + PAGE, MIB - PAGE)]
    loader()
    fs.setxattr(number, ADVICE, b"normal")
    assert fs.advice_work(number) is None
    assert fs.advice_work(ROOT) is None


def test_huge_pages_are_asked_for(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    number = make(fs, b"a", b"x" * MIB)
    advise(fs, number, b"hugepage")
    flags = [
        line
        for line in Path("/proc/self/smaps").read_text().split("VmFlags:")
        if line.splitlines()[0].split()[-1:] == ["hg"] or " hg " in line.splitlines()[0] + " "
    ]
    assert flags

    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "no huge pages")

    fs.setxattr(number, ADVICE, b"normal")
    monkeypatch.setattr(fs.store.backing, "prefer_huge_pages", refuse)
    with pytest.raises(InvalidArgumentError):
        advise(fs, number, b"hugepage")
    assert fs.getxattr(number, ADVICE) == b"normal"
