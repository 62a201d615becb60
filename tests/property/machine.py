"""The state machine: drives `Filesystem` and the model side by side.

After every step: the identity of the accounting, the findings of the check, and the totals of
every directory. `EphemeralMachine` runs on anonymous memory; `BundleMachine` on a bundle, which it
also closes and reopens, abandons as a killed daemon would, and looks at after a power cut.
"""

import copy
import errno
import itertools
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, TypeVar
from unittest import mock

from hypothesis import assume, note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mapfs.errors import MapfsError
from mapfs.filesystem.caller import Caller
from mapfs.filesystem.check import Check
from mapfs.filesystem.filesystem import Changes, Filesystem
from mapfs.format.superblock import HEADER_BYTES
from mapfs.store.mkfs import StoreOptions, create_store
from mapfs.store.opening import ephemeral_store, open_store
from mapfs.store.store import Store
from mapfs.store.transaction import Commit
from tests.property.model import LARGEST, WHAT_IF, Model, Node, Refused

T = TypeVar("T")
Pages = dict[int, bytes]
ME = Caller(1000, 1000)

NAMES = [b"a", b"b", b"c", b"d", b"\xff\n ", b"x" * 255]
STRANGE_NAMES = [b"", b".", b"..", b"y" * 256, b"a/b", b"a\0"]
PICK = st.integers(0, 40)  # the last stands for a choice that mostly is an error
# A name, or which of the names that the directory has.
NEW_NAME = st.sampled_from([*NAMES * 4, *STRANGE_NAMES, *range(6)])
OLD_NAME = st.sampled_from([*range(24), *NAMES, *STRANGE_NAMES])
SMALL = st.integers(0, 60_000)
ALIGNED = st.integers(0, 14).map(lambda page: page * 4096)
EDGES = st.sampled_from([1, 4095, 4097, 8191, 1 << 40, (1 << 63) - 4096])
OFFSETS = st.one_of(SMALL, ALIGNED, ALIGNED, SMALL, ALIGNED, EDGES)
LENGTHS = st.one_of(st.integers(0, 9000), ALIGNED)
KINDS = st.sampled_from([*[stat.S_IFREG] * 6, stat.S_IFIFO, stat.S_IFSOCK])
FALLOCATE = st.sampled_from([0, 1, 3, 0x10, 0x11] * 3 + [0x08, 0x02])
XATTRS = st.sampled_from([*[b"user.a", b"user.b", b"trusted.c"] * 3, b"u" * 256])
Chosen = bytes | int


class Shape(NamedTuple):
    """What makes stores differ: small numbers reach the rare paths early."""

    pages: int
    page_size: int = 4096
    first_bytes: int = 64 << 20  # the store's size at mkfs, and by how much it grows
    run: int = 1024  # pages taken ahead of need
    inodes: int = 32768  # inodes in memory
    log: int = 1 << 18  # bytes in each half of the intent log
    every: int = 1  # steps between checks, which bring tables up to date that could be behind


SHAPES = st.sampled_from(
    [
        Shape(64),
        Shape(24, run=2, log=4096),
        Shape(64, run=8, every=6),
        Shape(200, first_bytes=40 * 4096, run=8),
        Shape(48, first_bytes=20 * 4096, run=1, log=16384),
        Shape(4096, every=20),
        Shape(40, page_size=16384, run=4),
        Shape(96, run=3, inodes=3, every=4),
    ]
)


def outcome(call: Callable[[], T]) -> tuple[int, T | None]:
    """The errno that a call on either side ends with, or 0, and what it returns."""
    try:
        return 0, call()
    except Refused as refused:
        return refused.code, None
    except MapfsError as error:
        return error.errno, None
    except OSError as error:
        return error.errno or errno.EIO, None


def has_files(self: "EphemeralMachine") -> bool:
    return any(node.is_file for node in self.model.nodes)


def has_entries(self: "EphemeralMachine") -> bool:
    return any(node.entries for node in self.model.nodes)


def has_directories(self: "EphemeralMachine") -> bool:
    return any(node.is_directory for node in self.model.nodes if not node.is_root)


def has_orphans(self: "EphemeralMachine") -> bool:
    return any(node.nlink == 0 for node in self.model.nodes)


class EphemeralMachine(RuleBasedStateMachine):
    """mapfs on anonymous memory against the model."""

    def __init__(self) -> None:
        super().__init__()
        self.fills = itertools.cycle(range(1, 256))
        self.commit_under_way: Commit | None = None
        self.patches: list[mock._patch[int]] = []
        self.steps = 0

    # Set-up

    @initialize(shape=SHAPES, populated=st.sampled_from([False, True, True, True]))
    def open(self, shape: Shape, *, populated: bool) -> None:
        self.shape = shape
        for target, value in (
            ("mapfs.store.mkfs._FIRST_STORE_BYTES", shape.first_bytes),
            ("mapfs.store.allocator._LEAST_GROWTH_BYTES", shape.first_bytes // 4),
            ("mapfs.filesystem.inode._MOST_CACHED", shape.inodes),
            ("mapfs.store.log.HALF_BYTES", shape.log),
            ("mapfs.store.log.LOG_BYTES", 2 * shape.log),
        ):
            patch = mock.patch(target, value)
            patch.start()
            self.patches.append(patch)
        header = -(-HEADER_BYTES // shape.page_size)
        self.limit = (header + shape.pages) * shape.page_size
        self.model = Model(shape.page_size)
        self.make_store()
        self.fs = self.new_filesystem(self.open_store())
        root = self.fs.inode(1)
        self.model.root.uid, self.model.root.gid = root.uid, root.gid
        self.committed()
        if populated:
            self.populate()

    def populate(self) -> None:
        """Two directories, one in the other, four files in them, a second name, and a commit."""
        for depth in range(2):
            self.mkdir(depth, b"d", 0o755)
        for number in range(4):
            self.create(number, NAMES[number % 3], stat.S_IFREG, 0o644)
            self.write(number, 0, 3000 * number)
        self.link(2, 2, b"c")
        self.commit()

    def make_store(self) -> None:
        """Make what `open_store` opens."""

    def open_store(self) -> Store:
        return ephemeral_store(self.limit, self.shape.page_size)

    def new_filesystem(self, store: Store) -> Filesystem:
        store.allocator._largest_run = self.shape.run
        store.allocator._shared.grant = max(1, self.shape.run // 2)
        return Filesystem(store)

    def teardown(self) -> None:
        try:
            if hasattr(self, "fs"):
                self.finish()
        finally:
            for patch in self.patches:
                patch.stop()

    def finish(self) -> None:
        try:
            _check(self.fs)
            self.verify_everything()
            if self.commit_under_way is not None:
                self.end_commit(succeeds=True)
        except BaseException:
            self.fs.store.close()  # its catalog takes a share of the address space
            raise
        self.fs.close()

    # Both sides

    @property
    def available(self) -> int:
        """Pages that can be had now; what was freed comes back with a commit."""
        allocator = self.fs.store.allocator
        return allocator.free_pages + allocator.growth_pages - allocator.pending_pages

    def both(self, modelled: Callable[[], object], real: Callable[[], T]) -> T | None:
        """Run a call on both sides; they must agree on success, or on the errno."""
        expected, _ = outcome(modelled)
        got, value = outcome(real)
        names = [errno.errorcode.get(code, "success") for code in (expected, got)]
        assert expected == got, f"the model says {names[0]}, mapfs says {names[1]}"
        if got:
            note(f"refused: {names[1]}")
        return value

    def answer(self) -> None:
        """What a transport does before it answers: wait for a commit if the log is full."""
        while self.fs.must_commit:
            note("the log is full")
            if self.commit_under_way is None:
                self.commit()
            else:
                self.end_commit(succeeds=True)

    def node(self, pick: int, kind: Callable[[Node], bool] = lambda _: True) -> Node:
        """One of the inodes of a kind, or of any kind if there is none."""
        fitting = [node for node in self.model.nodes if kind(node)] or self.model.nodes
        return fitting[pick % len(fitting)]

    def file(self, pick: int) -> Node:
        """Mostly a file, sometimes something else."""
        return self.node(pick, lambda node: node.is_file or (pick == 40 and not node.is_root))

    def directory(self, pick: int) -> Node:
        """Mostly a directory, sometimes something else."""
        return self.node(pick, lambda node: node.is_directory or pick == 40)

    def place(
        self, parent: int, chosen: Chosen, kind: Callable[[Node], bool] = lambda _: True
    ) -> tuple[Node, bytes]:
        """A directory and a name: the name as drawn, or an entry, if possible of a kind."""
        if isinstance(chosen, bytes):
            return self.directory(parent), chosen
        entries = [entry for node in self.model.nodes for entry in self.model.listing(node)]
        fitting = [entry for entry in entries if kind(entry.node)] or entries
        if not fitting:
            return self.directory(parent), NAMES[chosen % len(NAMES)]
        entry = fitting[(parent + 41 * chosen) % len(fitting)]
        return entry.directory, entry.name

    def touched(self, node: Node) -> None:
        """A file's bytes may have changed: compare, and remember for the crash."""
        if node.is_file:
            self.compare_pages(self.fs, node)

    # Names

    @rule(parent=PICK, chosen=NEW_NAME, kind=KINDS, mode=st.sampled_from([0o644, 0o4755, 0o600]))
    def create(self, parent: int, chosen: Chosen, kind: int, mode: int) -> None:
        directory, name = self.place(parent, chosen)
        node = Node(kind, mode, ME.uid, ME.gid)
        made = self.both(
            lambda: self.model.create(directory, name, node),
            lambda: self.fs.create(directory.number, name, kind | mode, ME),
        )
        if made is not None:
            node.number = made.number

    @rule(parent=PICK, chosen=NEW_NAME, mode=st.sampled_from([0o755, 0o2755]))
    def mkdir(self, parent: int, chosen: Chosen, mode: int) -> None:
        directory, name = self.place(parent, chosen)
        node = Node(stat.S_IFDIR, mode, ME.uid, ME.gid)
        made = self.both(
            lambda: self.model.create(directory, name, node),
            lambda: self.fs.mkdir(directory.number, name, mode, ME),
        )
        if made is not None:
            node.number = made.number

    @rule(parent=PICK, chosen=NEW_NAME, length=st.sampled_from([1, 4095, 4096]))
    def symlink(self, parent: int, chosen: Chosen, length: int) -> None:
        (directory, name), target = self.place(parent, chosen), b"t" * length
        node = Node(stat.S_IFLNK, 0o777, ME.uid, ME.gid, target=target)
        made = self.both(
            lambda: self.model.create(directory, name, node),
            lambda: self.fs.symlink(directory.number, name, target, ME),
        )
        if made is not None:
            node.number = made.number

    @rule(parent=PICK)
    def create_unnamed(self, parent: int) -> None:
        directory = self.directory(parent)
        node = Node(stat.S_IFREG, 0o600, ME.uid, ME.gid)
        made = self.both(
            lambda: self.model.create_unnamed(directory, node),
            lambda: self.fs.create_unnamed(directory.number, 0o600, ME),
        )
        if made is not None:
            node.number = made.number

    @rule(pick=PICK, parent=PICK, chosen=NEW_NAME)
    @precondition(has_files)
    def link(self, pick: int, parent: int, chosen: Chosen) -> None:
        node = self.node(pick, lambda node: node.is_directory == (pick == 40))
        directory, name = self.place(parent, chosen)
        self.both(
            lambda: self.model.link(node, directory, name),
            lambda: self.fs.link(node.number, directory.number, name),
        )

    @rule(parent=PICK, chosen=OLD_NAME)
    @precondition(has_entries)
    def unlink(self, parent: int, chosen: Chosen) -> None:
        directory, name = self.place(parent, chosen, lambda node: not node.is_directory)
        self.both(
            lambda: self.model.unlink(directory, name),
            lambda: self.fs.unlink(directory.number, name),
        )

    @rule(parent=PICK, chosen=OLD_NAME)
    @precondition(has_directories)
    def rmdir(self, parent: int, chosen: Chosen) -> None:
        directory, name = self.place(parent, chosen, lambda node: node.is_directory)
        self.both(
            lambda: self.model.rmdir(directory, name),
            lambda: self.fs.rmdir(directory.number, name),
        )

    @rule(pick=PICK)
    @precondition(has_orphans)
    def forget(self, pick: int) -> None:
        node = self.node(pick, lambda node: node.nlink == 0 or pick == 40)
        self.model.forget(node)
        self.fs.forget(node.number)

    @rule(
        source=PICK,
        chosen=OLD_NAME,
        parent=PICK,
        new=NEW_NAME,
        flags=st.sampled_from([0, 0, 0, 0, 1, 2, 2, 3]),
        directories=st.booleans(),
    )
    @precondition(has_entries)
    def rename(
        self,
        *,
        source: int,
        chosen: Chosen,
        parent: int,
        new: Chosen,
        flags: int,
        directories: bool,
    ) -> None:
        def kind(node: Node) -> bool:
            return node.is_directory == directories

        directory, name = self.place(source, chosen, kind)
        if flags == 2 and isinstance(new, bytes):
            new = parent  # something to exchange with
        target, new_name = self.place(parent, new, kind)
        self.both(
            lambda: self.model.rename(directory, name, target, new_name, flags),
            lambda: self.fs.rename(directory.number, name, target.number, new_name, flags),
        )

    # Content

    @rule(pick=PICK, offset=OFFSETS, length=LENGTHS)
    @precondition(has_files)
    def write(self, pick: int, offset: int, length: int) -> None:
        node, available = self.file(pick), self.available
        data = bytes([next(self.fills)]) * length
        self.both(
            lambda: self.model.write(node, offset, data, available),
            lambda: self.fs.write(node.number, offset, data),
        )
        self.touched(node)

    @rule(pick=PICK, length=LENGTHS)
    @precondition(has_files)
    def append(self, pick: int, length: int) -> None:
        self.write(pick, self.file(pick).size, length)

    @rule(pick=PICK, size=OFFSETS)
    @precondition(has_files)
    def truncate(self, pick: int, size: int) -> None:
        node = self.file(pick)
        self.both(
            lambda: self.model.truncate(node, size),
            lambda: self.fs.setattr(node.number, Changes(size=size)),
        )
        self.touched(node)

    @rule(pick=PICK, mode=FALLOCATE, offset=OFFSETS, length=LENGTHS)
    @precondition(has_files)
    def fallocate(self, pick: int, mode: int, offset: int, length: int) -> None:
        node, available = self.file(pick), self.available
        self.both(
            lambda: self.model.fallocate(node, mode, offset, length, available),
            lambda: self.fs.fallocate(node.number, mode, offset, length),
        )
        self.touched(node)

    @rule(pick=PICK, offset=OFFSETS, other=PICK, to=OFFSETS, length=st.one_of(LENGTHS, SMALL))
    @precondition(has_files)
    def copy_range(self, pick: int, offset: int, other: int, to: int, length: int) -> None:
        source, target, available = self.file(pick), self.file(other), self.available
        expected, full = outcome(lambda: self.model.copy_length(source, offset, target, to, length))
        assume(to + (full or 0) < 1 << 62)
        got, done = outcome(
            lambda: self.fs.copy_range(source.number, offset, target.number, to, length)
        )
        if got == errno.ENOSPC or done != full:
            assert full is not None
            assert self.model.holes(target, to, full) > available
            note(f"copied {done} of {full}: no space")
        else:
            assert expected == got
        if done:
            data = self.model.read(source, offset, done)
            self.model.write(target, to, data, available)
        self.touched(target)

    @rule(pick=PICK, offset=OFFSETS, length=LENGTHS)
    @precondition(has_files)
    def read(self, pick: int, offset: int, length: int) -> None:
        node = self.file(pick)
        expected = outcome(lambda: self.model.read(node, offset, length))
        got = outcome(lambda: b"".join(self.fs.read(node.number, offset, length)))
        assert got == expected

    @rule(pick=PICK, offset=OFFSETS, whence=st.sampled_from([os.SEEK_DATA, os.SEEK_HOLE]))
    @precondition(has_files)
    def seek(self, pick: int, offset: int, whence: int) -> None:
        node = self.node(pick, lambda node: node.is_file)
        assume(node.is_file)
        size = self.shape.page_size
        wants_data = whence == os.SEEK_DATA
        expected: tuple[int, int | None] = (errno.ENXIO, None)
        if offset < node.size:
            # Where a page of the wanted kind may start: here, or next to an allocated page.
            starts = {offset // size, *node.pages, *(page + 1 for page in node.pages)}
            found = [
                max(offset, page * size)
                for page in sorted(starts)
                if page >= offset // size
                and page * size < node.size
                and (page in node.pages) == wants_data
            ]
            if found or not wants_data:
                expected = 0, found[0] if found else node.size
        assert outcome(lambda: self.fs.seek(node.number, offset, whence)) == expected

    # Attributes

    @rule(pick=PICK, name=XATTRS, length=st.sampled_from([0, 5, 3000]), flags=st.integers(0, 2))
    def setxattr(self, pick: int, name: bytes, length: int, flags: int) -> None:
        node = self.node(pick)
        value = b"v" * length
        self.both(
            lambda: self.model.setxattr(node, name, value, flags),
            lambda: self.fs.setxattr(node.number, name, value, flags),
        )
        assert sorted(self.fs.listxattr(node.number)) == sorted(node.xattrs)

    @rule(pick=PICK, name=XATTRS)
    def removexattr(self, pick: int, name: bytes) -> None:
        node = self.node(pick)
        self.both(
            lambda: self.model.removexattr(node, name),
            lambda: self.fs.removexattr(node.number, name),
        )

    @rule(pick=PICK, mode=st.none() | st.sampled_from([0, 0o644, 0o7777]), uid=st.none() | SMALL)
    def setattr(self, pick: int, mode: int | None, uid: int | None) -> None:
        node = self.node(pick)
        self.fs.setattr(node.number, Changes(mode=mode, uid=uid, atime=7, mtime=-9, ctime=11))
        if uid is not None:
            node.uid = uid
            if node.is_file:
                node.mode &= ~(stat.S_ISUID | (stat.S_ISGID if node.mode & stat.S_IXGRP else 0))
        node.mode = node.mode if mode is None else mode
        inode = self.fs.inode(node.number)
        assert (inode.atime, inode.mtime, inode.ctime) == (7, -9, 11)

    # Commits

    @rule()
    @precondition(lambda self: self.commit_under_way is None)
    def commit(self) -> None:
        self.fs.commit()
        assert self.fs.store.allocator.pending_pages == 0
        self.committed()

    @rule()
    @precondition(lambda self: self.commit_under_way is None)
    def begin_commit(self) -> None:
        self.commit_under_way = self.fs.begin_commit()
        self.frozen()

    @rule(succeeds=st.sampled_from([True, True, False]))
    @precondition(lambda self: self.commit_under_way is not None)
    def end_commit(self, *, succeeds: bool) -> None:
        assert self.commit_under_way is not None
        if succeeds:
            worker = threading.Thread(target=self.commit_under_way.write)
            worker.start()
            worker.join()
            self.written()
        self.fs.end_commit(succeeded=succeeds)
        self.commit_under_way = None

    def committed(self) -> None:
        self.frozen()
        self.written()

    def frozen(self) -> None:
        """A commit began: what it holds is what is there now."""

    def written(self) -> None:
        """The commit that began last is durable."""

    # What must hold

    @invariant()
    def accounts_are_right(self) -> None:
        if not hasattr(self, "fs"):
            return
        self.answer()
        self.steps += 1
        if self.steps % self.shape.every == 0:
            _check(self.fs)
            self.compare_accounts()

    def compare_accounts(self) -> None:
        assert self.fs.store.state.allocated_pages == self.model.allocated_pages
        assert self.fs.store.state.inodes == len(self.model.nodes)
        for node in self.model.nodes:
            if node.is_directory and node.nlink:
                self.compare_totals(self.fs, self.model, node)

    @rule()
    def verify_everything(self) -> None:
        self.compare(self.fs, self.model)

    def compare(self, fs: Filesystem, model: Model) -> None:
        """Every inode, byte, entry and attribute of `fs` is as the model has it."""
        for node in model.nodes:
            self.compare_inode(fs, node)
            if node.is_directory:
                self.compare_listing(fs, model, node)
                self.compare_totals(fs, model, node)
            elif node.is_file:
                self.compare_pages(fs, node)
                self.compare_slack(fs, model, node)

    def compare_inode(self, fs: Filesystem, node: Node) -> None:
        inode = fs.inode(node.number)
        assert (inode.type, inode.mode & 0o7777) == (node.type, node.mode)
        assert (inode.uid, inode.gid, inode.nlink) == (node.uid, node.gid, node.nlink)
        assert inode.target == node.target
        assert inode.size == (len(node.entries) if node.is_directory else node.size)
        assert {name: fs.getxattr(node.number, name) for name in fs.listxattr(node.number)} == (
            node.xattrs
        )

    def compare_listing(self, fs: Filesystem, model: Model, node: Node) -> None:
        listed = [(entry.name, entry.inode, entry.type) for entry in fs.readdir(node.number)]
        expected = [(name.name, name.node.number, name.node.type) for name in model.listing(node)]
        assert listed[2:] == expected
        assert [name for name, _, _ in listed[:2]] == [b".", b".."]
        for name, number, _ in expected:
            assert fs.lookup(node.number, name).number == number
        if node.nlink and node.parent is not None:
            assert fs.lookup(node.number, b"..").number == node.parent.number

    def compare_pages(self, fs: Filesystem, node: Node) -> None:
        """The pages of a file as the store holds them, up to the end of the file."""
        assert _stored(fs, node.number) == {
            page: bytes(data[: max(0, node.size - page * fs.store.page_size)])
            for page, data in node.pages.items()
        }

    def compare_slack(self, fs: Filesystem, model: Model, node: Node) -> None:
        said = _attributes(fs, node.number, b"file")
        expected = model.contribution(node) | {
            "pages": len(node.pages),
            "slack.tail": model.tail(node),
            "slack.prealloc": model.preallocated(node) * model.page_size,
            "bytes": node.size,
            "allocated": len(node.pages) * model.page_size,
            "slack": model.slack(node),
        }
        del expected["files"], expected["subdirs"]
        assert {key: said[key] for key in expected} == expected
        assert {key for key in said if key.startswith("slack.at")} == {
            f"slack.at.{at}" for at in WHAT_IF
        }

    def compare_totals(self, fs: Filesystem, model: Model, node: Node) -> None:
        said = _attributes(fs, node.number, b"dir")
        assert said == model.own(node) | {
            f"r{key}": value for key, value in model.tree(node).items()
        }


class BundleMachine(EphemeralMachine):
    """mapfs on a bundle: also closing, reopening, and dying without a word."""

    def __init__(self) -> None:
        super().__init__()
        self.directory_of_bundle = Path(tempfile.mkdtemp(prefix="mapfs-machine-"))
        self.path = self.directory_of_bundle / "t.mapfs"
        self.durable: Model | None = None
        self.freezing: Model | None = None
        # Of each file, its pages after each change since the durable (the frozen) state.
        self.since: list[dict[int, Pages]] = []
        self.since_frozen: list[dict[int, Pages]] = []

    def make_store(self) -> None:
        create_store(self.path, StoreOptions(self.limit, self.shape.page_size))

    def open_store(self) -> Store:
        return open_store(self.path)

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            shutil.rmtree(self.directory_of_bundle)

    def finish(self) -> None:
        super().finish()
        self.model.forget_orphans()
        with closing(Filesystem(open_store(self.path, read_only=True))) as fs:
            assert list(Check(fs.store).findings()) == []
            self.compare(fs, self.model)

    @rule()
    @precondition(lambda self: self.commit_under_way is None)
    def reopen(self) -> None:
        self.fs.close()
        self.model.forget_orphans()
        self.fs = self.new_filesystem(self.open_store())
        self.committed()
        self.verify_everything()

    def frozen(self) -> None:
        self.freezing = copy.deepcopy(self.model)
        self.since_frozen = []

    def written(self) -> None:
        self.durable, self.since = self.freezing, self.since_frozen
        self.freezing, self.since_frozen = None, []

    def name(self, directory: Node, chosen: Chosen) -> bytes:
        """A name as drawn, or one that the directory has."""
        if isinstance(chosen, bytes):
            return chosen
        names = sorted(directory.entries) or NAMES
        return names[chosen % len(names)]

    def touched(self, node: Node) -> None:
        super().touched(node)
        state = {node.number: {page: bytes(data) for page, data in node.pages.items()}}
        self.since.append(state)
        self.since_frozen.append(state)

    @rule()
    def die(self) -> None:
        """The daemon is killed and started again: nothing that was answered is lost."""
        self.fs.store.close()
        self.commit_under_way = None
        self.model.forget_orphans()
        with closing(Filesystem(open_store(self.path, read_only=True))) as fs:
            assert list(Check(fs.store).findings()) == []
            self.compare(fs, self.model)
        self.fs = self.new_filesystem(self.open_store())
        self.committed()
        self.verify_everything()

    @rule()
    def power_cut(self) -> None:
        """Look at what is left of the store without its log, and go on with the living."""
        copied = self.directory_of_bundle / "copy.mapfs"
        copied.mkdir()
        for name in ("store", "catalog", "lock"):
            shutil.copy(self.path / name, copied / name)
        try:
            with closing(open_store(copied, read_only=True)) as store:
                assert list(Check(store).findings()) == []
            expected = copy.deepcopy(self.durable)
            assert expected is not None
            expected.forget_orphans()
            with closing(Filesystem(open_store(copied))) as fs:
                _check(fs)
                self.adopt_bytes(fs, expected)
                self.compare(fs, expected)
                for node in expected.nodes:
                    if node.is_file:
                        self.expose(fs, expected, node)
                _check(fs)
        finally:
            shutil.rmtree(copied)

    def expose(self, fs: Filesystem, expected: Model, node: Node) -> None:
        """Make a file longer: what becomes visible is zeros."""
        size = min(node.size + 3 * expected.page_size, LARGEST)
        expected.truncate(node, size)
        fs.setattr(node.number, Changes(size=size))
        self.compare_pages(fs, node)

    def adopt_bytes(self, fs: Filesystem, expected: Model) -> None:
        """Bytes written in place since the commit may be there or not: make `expected` follow.

        Each byte must be one that its file had there, at the commit or later; never another's.
        """
        for node in expected.nodes:
            states = [state[node.number] for state in self.since if node.number in state]
            for page, found in _stored(fs, node.number).items():
                ours = bytes(node.pages[page])
                choices = [ours, *(state.get(page, bytes(len(ours))) for state in states)]
                if found not in [choice[: len(found)] for choice in choices]:
                    for at, byte in enumerate(found):
                        assert byte in {choice[at] for choice in choices}
                node.pages[page][: len(found)] = found


def _check(fs: Filesystem) -> None:
    """The check of the store finds nothing, and the accounts add up to its size."""
    fs.flush()
    runs = list(fs.store.allocator._runs.values())
    used = [run.used for run in runs]
    for run in runs:  # `settle` gives up runs that were not used since the last time
        run.used = True
    fs.store.allocator.settle()
    for run, was_used in zip(runs, used, strict=True):
        run.used = was_used
    assert list(Check(fs.store).findings()) == []
    said = _attributes(fs, 1, b"fs")
    assert said["store_bytes"] == (
        said["stored_bytes"] + said["slack_bytes"] + said["free_bytes"] + said["metadata_bytes"]
    )


def _attributes(fs: Filesystem, number: int, group: bytes) -> dict[str, int]:
    pairs = fs.getxattr(number, b"user.mapfs." + group).decode().split()
    values = dict(pair.split("=") for pair in pairs)
    # The one that is a word. The machine lets commits fail, and the next one tries again.
    assert values.pop("state", "ok") in ("ok", "degraded")
    return {key: int(value) for key, value in values.items()}


def _stored(fs: Filesystem, number: int) -> Pages:
    """The pages of an inode as the store holds them, the last one up to the end of the file."""
    size = fs.store.page_size
    end = fs.inode(number).size
    return {
        page: b"".join(fs.store.backing.read(mapping.store_page(page) * size, size))[
            : max(0, end - page * size)
        ]
        for mapping in fs._extents.mappings(number)
        for page in range(mapping.page, mapping.end)
    }
