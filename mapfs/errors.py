"""Every error that mapfs raises on purpose, each with its errno and its exit code.

The transports answer `errno` to the kernel; the commands print the message as one line and
exit with `exit_code`. Whatever is not a `MapfsError` or an `OSError` is a bug.
"""

import errno as _errno
from typing import ClassVar, Final

# What a full disk, or a used up quota, says.
FULL: Final = (_errno.ENOSPC, _errno.EDQUOT)


class MapfsError(Exception):
    """The root of the tree. Raised itself for a failure that has no better name."""

    errno: ClassVar[int] = _errno.EIO
    exit_code: int = 1


# Opening and creating stores: raised by `mapfs.store` before anything is served.


class StoreError(MapfsError):
    """A store cannot be created or opened as asked."""

    errno = _errno.EINVAL


class NotAStoreError(StoreError):
    """The path is no mapfs bundle: no directory, or a file of the bundle is missing or foreign."""


class DamagedStoreError(StoreError):
    """It is a mapfs store, but a checksum or a record does not hold."""

    errno = _errno.EUCLEAN


class NewerFormatError(StoreError):
    """The store was written by a later version of mapfs in a format that this one cannot read."""


class StoreInUseError(StoreError):
    """Another process holds the store's lock; the message names it."""

    errno = _errno.EBUSY


class StoreExistsError(StoreError):
    """mkfs would overwrite something that is there."""

    errno = _errno.EEXIST


class UsageError(MapfsError):
    """An argument makes no sense: a size that is no number, an unknown mount option."""

    errno = _errno.EINVAL
    exit_code = 2


class MountError(MapfsError):
    """The kernel or fusermount3 refused the mount; the message says why."""


class BusyMountError(MountError):
    """umount(2) says EBUSY: something of the mount is in use."""


class MountGoneError(MountError):
    """What was mounted is unmounted, or its daemon is gone for good."""


class DaemonError(MountError):
    """What another process said of why it cannot serve a mount, with the exit code it gave."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    @staticmethod
    def to_message(error: BaseException) -> bytes:
        """An error as the `CODE TEXT` that `from_message` takes."""
        text = str(error)
        if not isinstance(error, MapfsError | OSError):
            text = f"{type(error).__name__}: {text}"
        exit_code = error.exit_code if isinstance(error, MapfsError) else 1
        return f"{exit_code} {text}".encode(errors="surrogateescape")

    @classmethod
    def from_message(cls, message: bytes) -> "DaemonError":
        """The error in a `CODE TEXT`; nothing was said by a process that was killed."""
        code, _, text = message.decode(errors="surrogateescape").partition(" ")
        return cls(text or "the daemon ended before the mount was ready", int(code or 1))


# POSIX: raised by `mapfs.filesystem` for one call, never for the whole filesystem.


class NotFoundError(MapfsError):
    """No such name, or an inode number that is not (or no longer) in use."""

    errno = _errno.ENOENT


class ExistsError(MapfsError):
    """The name is taken."""

    errno = _errno.EEXIST


class NotADirectoryFileError(MapfsError):
    """A directory is needed and this is something else."""

    errno = _errno.ENOTDIR


class IsADirectoryFileError(MapfsError):
    """A directory where the call needs something else."""

    errno = _errno.EISDIR


class NotEmptyError(MapfsError):
    """The directory to remove or replace still has entries."""

    errno = _errno.ENOTEMPTY


class NameTooLongError(MapfsError):
    """A name above 255 bytes, or a symbolic link's target above 4095."""

    errno = _errno.ENAMETOOLONG


class TooManyLinksError(MapfsError):
    """The file has as many names as it may have."""

    errno = _errno.EMLINK


class NoSpaceError(MapfsError):
    """The store is at its limit, or the host's disk is full."""

    errno = _errno.ENOSPC


class FileTooBigError(MapfsError):
    """An offset above the largest file size."""

    errno = _errno.EFBIG


class InvalidArgumentError(MapfsError):
    """What `EINVAL` means in the call's man page."""

    errno = _errno.EINVAL


class NoAttributeError(MapfsError):
    """No such extended attribute. Never ENOSYS: that would end the call for the whole mount."""

    errno = _errno.ENODATA


class AttributeTooBigError(MapfsError):
    """An extended attribute's name above 255 bytes or its value above 64 KiB."""

    errno = _errno.ERANGE


class ReadOnlyError(MapfsError):
    """A change to a filesystem, or a virtual attribute, that can only be read."""

    errno = _errno.EROFS


class NotPermittedError(MapfsError):
    """What `EPERM` means in the call's man page."""

    errno = _errno.EPERM


class PinLimitError(MapfsError):
    """More would be pinned in memory than the daemon may lock (RLIMIT_MEMLOCK)."""

    errno = _errno.ENOMEM


class NotSupportedError(MapfsError):
    """A mode or flag that mapfs does not implement."""

    errno = _errno.EOPNOTSUPP


class UnknownIoctlError(MapfsError):
    """An ioctl(2) that mapfs does not know."""

    errno = _errno.ENOTTY


class EscapeError(MapfsError):
    """The path of something to be copied would lead out of where the copy goes."""

    errno = _errno.EINVAL


class ArchiveError(MapfsError):
    """An archive cannot be read further, or cannot hold what is to be put into it."""

    errno = _errno.EBADMSG


class UnreadableError(MapfsError):
    """What is to be copied is damaged: a failure of that member, and of no other."""


class WriteFailedError(MapfsError):
    """An archive cannot be written any further; the message says why."""


class NoSuchOffsetError(MapfsError):
    """`lseek` for data or a hole at or beyond the end of the file."""

    errno = _errno.ENXIO
