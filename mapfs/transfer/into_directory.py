"""Copying into a directory of the operating system, a mounted mapfs included."""

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mapfs.errors import NotADirectoryFileError
from mapfs.store.syscalls import sync_file_range
from mapfs.transfer.directory import attributes_of
from mapfs.transfer.entry import Content, Entry, FileId
from mapfs.transfer.tree import Found, Tree

_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# After so much of a file the kernel is told to begin writing it: on a mount the daemon then works
# while the copy goes on, and not when all is there.
_BEGIN_BYTES: Final = 4 << 20


class DirectoryTree(Tree[int]):
    """A tree under a directory; directories go by descriptor, names by the `…at` calls.

    A new file gets its time last: until then it has that of the copy, and differs from the source.
    One that replaces another has a temporary name until then. After an error neither is left, only
    a killed process leaves them behind.

    In a directory that the copy has made, only a second member of one name, or another process,
    can be in the way. There it does not ask whether a name is free, but sees when it creates the
    file: on a mount each question is a request, and creating asks again, whatever was answered
    (LOOKUP_EXCL in fs/fuse/dir.c).
    """

    def __init__(self, base: str, top: bytes = b"") -> None:
        """Copy below the directory `top` of `base`, which are made if they are missing.

        `base` itself may be reached through symbolic links, nothing below it.
        Raises `OSError` or `NotADirectoryFileError`.
        """
        with contextlib.suppress(FileExistsError):  # open(2) says that it is no directory
            Path(base).mkdir(parents=True, exist_ok=True)
        self._temporary = f".mapfs-partial-{os.getpid()}"
        # For each open directory, whether what is made in it begins with an ACL.
        self._hands_down: dict[int, bool] = {}
        # The open ones that this copy has made.
        self._made: set[int] = set()
        super().__init__(os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        self._hands_down[self._top] = _hands_down(self._top)
        if top:
            below = os.dup(self._directory(top))
            self.close()
            self._top = below
            self._hands_down[below] = _hands_down(below)

    @property
    def identity(self) -> FileId:
        """What the copy goes to, for a source that must not copy it into itself."""
        found = os.fstat(self._top)
        return found.st_dev, found.st_ino

    def put(self, entry: Entry) -> bool:
        """See `Target.put`."""
        try:
            return super().put(entry)
        except FileExistsError:
            if not self._made:
                raise
        self._made.clear()  # there may be more of the kind
        return super().put(entry)

    def find(self, directory: int, name: bytes) -> Found | None:
        """See `Tree.find`."""
        return None if directory in self._made else self.look(directory, name)

    def look(self, directory: int, name: bytes) -> Found | None:
        """See `Tree.look`."""
        try:
            return _found(os.stat(name, dir_fd=directory, follow_symlinks=False))
        except FileNotFoundError:
            return None

    def look_at(self, directory: int) -> Found:
        """See `Tree.look_at`."""
        return _found(os.fstat(directory))

    def mkdir(self, directory: int, name: bytes, mode: int) -> int:
        """See `Tree.mkdir`."""
        os.mkdir(name, mode, dir_fd=directory)
        fd = _opened(directory, name)
        self._hands_down[fd] = self._hands_down[directory]
        self._made.add(fd)
        return fd

    def enter(self, directory: int, name: bytes) -> int:
        """See `Tree.enter`."""
        fd = _opened(directory, name)
        self._hands_down[fd] = _hands_down(fd)
        return fd

    def release(self, directory: int) -> None:
        """See `Tree.release`."""
        self._made.discard(directory)
        os.close(directory)

    def open_up(self, directory: int) -> None:
        """See `Tree.open_up`."""
        if self._is_root:
            return
        mode = os.fstat(directory).st_mode
        if mode & stat.S_IRWXU != stat.S_IRWXU:
            os.fchmod(directory, stat.S_IMODE(mode) | stat.S_IRWXU)

    def write(self, directory: int, name: bytes, entry: Entry, *, is_there: bool) -> None:
        """See `Tree.write`."""
        assert entry.open is not None
        made: bytes | str = self._free_temporary(directory) if is_there else name
        with entry.open() as content:
            fd = os.open(made, _NEW_FLAGS, self.mode_of(entry) & 0o777, dir_fd=directory)
            try:
                try:
                    _fill(fd, content, entry.size)
                    if self._hands_down[directory]:
                        _drop_attributes(fd)
                    self._complete(fd, entry, entry.attributes())
                finally:
                    os.close(fd)  # which may say that there is no space
                if is_there:
                    os.rename(made, name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(made, dir_fd=directory)
                raise

    def _free_temporary(self, directory: int) -> str:
        """The temporary name, free: a killed process of this number may have left it."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._temporary, dir_fd=directory)
        return self._temporary

    def make(self, directory: int, name: bytes, entry: Entry, *, is_there: bool) -> None:
        """See `Tree.make`."""
        made: bytes | str = self._free_temporary(directory) if is_there else name
        if stat.S_ISLNK(entry.mode):
            os.symlink(entry.target, os.fsencode(made), dir_fd=directory)
        else:
            os.mknod(made, entry.type | 0o600, entry.rdev, dir_fd=directory)
        self._complete_node(directory, os.fsdecode(made), entry)
        if is_there:
            os.rename(made, name, src_dir_fd=directory, dst_dir_fd=directory)

    def _complete_node(self, directory: int, name: str, entry: Entry) -> None:
        """As `_complete`, for what cannot be opened; the name is that of what was just made."""
        owner = self.owner_of(entry)
        if owner is not None:
            os.chown(name, *owner, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISLNK(entry.mode):
            os.chmod(name, self.mode_of(entry), dir_fd=directory)
        path = f"/proc/self/fd/{directory}/{name}"
        self.set_attributes(
            entry.attributes(),
            lambda key, value: os.setxattr(path, key, value, follow_symlinks=False),
        )
        times = (entry.atime, entry.mtime)
        os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)

    def link(
        self, first: int, first_name: bytes, directory: int, name: bytes, *, is_there: bool
    ) -> None:
        """See `Tree.link`."""
        made: bytes | str = self._free_temporary(directory) if is_there else name
        os.link(first_name, made, src_dir_fd=first, dst_dir_fd=directory, follow_symlinks=False)
        if is_there:
            os.rename(made, name, src_dir_fd=directory, dst_dir_fd=directory)

    def complete(self, directory: int, entry: Entry, attributes: Mapping[bytes, bytes]) -> None:
        """See `Tree.complete`."""
        _drop_attributes(directory)
        self._complete(directory, entry, attributes)

    def _complete(self, fd: int, entry: Entry, attributes: Mapping[bytes, bytes]) -> None:
        """Owner first, which clears set-id bits and capabilities (chown(2)), and times last."""
        found = os.fstat(fd)
        owner = self.owner_of(entry)
        if owner is not None and owner != (found.st_uid, found.st_gid):
            os.fchown(fd, *owner)
            found = os.fstat(fd)
        if stat.S_IMODE(found.st_mode) != self.mode_of(entry):
            os.fchmod(fd, self.mode_of(entry))
        self.set_attributes(attributes, lambda name, value: os.setxattr(fd, name, value))
        os.utime(fd, ns=(entry.atime, entry.mtime))


def _opened(directory: int, name: bytes) -> int:
    try:
        return os.open(name, _DIRECTORY_FLAGS, dir_fd=directory)
    except NotADirectoryError:
        raise NotADirectoryFileError(f"refused: {os.fsdecode(name)} is not a directory") from None


def _drop_attributes(fd: int) -> None:
    """Take away what a new file or directory has from a default ACL."""
    for name in attributes_of(fd):
        os.removexattr(fd, name)


def _hands_down(directory: int) -> bool:
    """Whether a directory has a default ACL, which new files get."""
    try:
        return bool(os.getxattr(directory, "system.posix_acl_default"))
    except OSError:
        return False


def _fill(fd: int, content: Content, size: int) -> None:
    begun = end = 0
    for offset, data in content.pieces():
        view = memoryview(data)
        end = offset + view.nbytes
        while view.nbytes:
            view = view[os.pwrite(fd, view, end - view.nbytes) :]
        if end - begun >= _BEGIN_BYTES:
            with contextlib.suppress(OSError):  # closing says what is wrong
                sync_file_range(fd, begun, end - begun)
            begun = end
    if end != size:
        os.ftruncate(fd, size)


def _found(found: os.stat_result) -> Found:
    mode = found.st_mode
    rdev = found.st_rdev if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else 0
    return Found(
        mode, found.st_uid, found.st_gid, found.st_size, found.st_mtime_ns, rdev, found.st_ino
    )
