"""Mounting and unmounting: `/dev/fuse`, mount(2) as root, fusermount3 for everyone else.

mapfs mounts by itself rather than through libfuse, because MS_POSIXACL must be set at mount(2):
only then does the kernel leave the umask to the filesystem (`fuse_fill_super_common` in
fs/fuse/inode.c), which must ignore it where a default ACL is inherited (acl(5)).
"""

import contextlib
import ctypes
import errno
import os
import socket
import stat
import subprocess
from pathlib import Path
from typing import Final

from mapfs.errors import FULL, BusyMountError, MountError
from mapfs.fuse.options import MS_NODEV, MS_NOSUID, MS_POSIXACL, MountOptions
from mapfs.mounts import device_at

_MNT_FORCE: Final = 1
_MNT_DETACH: Final = 2
_NAMED_FLAGS: Final = {1: "ro", 2: "nosuid", 4: "nodev", 8: "noexec", 16: "sync", 1024: "noatime"}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)


def check_mountpoint(mountpoint: Path) -> None:
    """Raise `MountError` with what is wrong, unless `mountpoint` is an empty directory."""
    try:
        if not stat.S_ISDIR(mountpoint.stat().st_mode):
            raise MountError(f"{mountpoint}: not a directory")
        with os.scandir(mountpoint) as entries:
            if next(entries, None) is not None:
                raise MountError(f"{mountpoint}: not empty (mount on an empty directory)")
    except FileNotFoundError:
        raise MountError(f"{mountpoint}: no such directory (create it first)") from None
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise MountError(
                f"{mountpoint}: a mount without a daemon is there (mapfs umount {mountpoint})"
            ) from error
        raise MountError(f"{mountpoint}: {error.strerror}") from error
    if not Path("/dev/fuse").exists():
        raise MountError("/dev/fuse is missing: load the kernel module with: modprobe fuse")


def mount(source: str, mountpoint: Path, options: MountOptions) -> int:
    """Mount and return the descriptor of the FUSE connection. Raises `MountError`."""
    if os.geteuid() == 0:
        return _mount_as_root(source, mountpoint, options)
    return _mount_as_user(source, mountpoint, options)


def _mount_as_root(source: str, mountpoint: Path, options: MountOptions) -> int:
    try:
        fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise MountError(f"/dev/fuse: {error.strerror}") from error
    data = f"fd={fd},rootmode=40000,user_id=0,group_id=0,default_permissions"
    if options.allow_other:
        data += ",allow_other"
    flags = options.flags | (MS_POSIXACL if options.acl else 0)
    arguments = (os.fsencode(source), os.fsencode(mountpoint), b"fuse.mapfs", flags, data.encode())
    if _libc.mount(*arguments) < 0:
        code = ctypes.get_errno()
        os.close(fd)
        raise MountError(f"cannot mount on {mountpoint}: {os.strerror(code)}")
    return fd


def _mount_as_user(source: str, mountpoint: Path, options: MountOptions) -> int:
    """Have fusermount3 mount; it passes the descriptor over the socket in `_FUSE_COMMFD`."""
    source = source.replace("\\", "\\\\").replace(",", "\\,")
    words = [f"fsname={source}", "subtype=mapfs", "default_permissions"]
    words += [name for flag, name in _NAMED_FLAGS.items() if options.flags & flag]
    words += ["allow_other"] if options.allow_other else []
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        result = _fusermount(
            ["-o", ",".join(words), "--", os.fspath(mountpoint)], comm_fd=theirs.fileno()
        )
        if result.returncode:
            raise MountError(f"cannot mount on {mountpoint}: {_last_line(result.stderr)}")
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    os.set_inheritable(fds[0], False)  # noqa: FBT003 (takes it so only)
    return fds[0]


def unmount(mountpoint: Path, *, lazy: bool = False) -> None:
    """Unmount, or with `lazy` detach while files are open.

    Raises `MountError`; of these `BusyMountError` if something of the mount is in use.
    """
    attempt = _unmount_as_root if os.geteuid() == 0 else _unmount_as_user
    reason = attempt(mountpoint, lazy=lazy)
    if reason is not None:
        raise _unmount_error(mountpoint, reason)


def _unmount_error(mountpoint: Path, reason: str) -> MountError:
    error = BusyMountError if os.strerror(errno.EBUSY) in reason else MountError
    return error(f"cannot unmount {mountpoint}: {reason}")


def _unmount_as_root(mountpoint: Path, *, lazy: bool) -> str | None:
    """Unmount, or say why not."""
    if _libc.umount2(os.fsencode(mountpoint), _MNT_DETACH if lazy else 0) < 0:
        return os.strerror(ctypes.get_errno())
    return None


def _unmount_as_user(mountpoint: Path, *, lazy: bool) -> str | None:
    """Have fusermount3 unmount, or say why not."""
    result = _fusermount(["-u", *(["-z"] if lazy else []), "--", os.fspath(mountpoint)])
    return _last_line(result.stderr) if result.returncode else None


def leave(mountpoint: Path, *, lazy: bool = False) -> None:
    """As `unmount`, for who serves the mount: waits for requests, so it is for another thread.

    Another process makes the call. A thread in it could not be killed, nor could its process, as
    long as nobody answers.
    """
    reason = _unmount_as_user(mountpoint, lazy=lazy)
    if reason is not None:
        raise _unmount_error(mountpoint, reason)


def sync(mountpoint: Path) -> None:
    """Let the kernel write what it holds of a mount, and wait. Raises `OSError`.

    It does so by requests, and another process waits for them, as in `leave`.
    """
    command = ["sync", "-f", "--", os.fspath(mountpoint)]
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        code = next((each for each in FULL if os.strerror(each) in done.stderr), errno.EIO)
        raise OSError(code, os.strerror(code))


def abort_file(device: int) -> Path:
    """What ends the connection of the mount with this `st_dev` when it is written to.

    See Documentation/filesystems/fuse/fuse.rst in the kernel's sources.
    """
    return Path(f"/sys/fs/fuse/connections/{os.minor(device)}/abort")


def abort(device: int, mountpoint: Path) -> None:
    """End the connection of a mount, whoever still holds it: who waits for an answer gets an error.

    `device` is its `st_dev`. Where fusectl is not mounted only root can, and only while the mount
    is where it was.
    """
    with contextlib.suppress(OSError):
        abort_file(device).write_text("1")
        return
    if device_at(mountpoint) == device:
        _libc.umount2(os.fsencode(mountpoint), _MNT_FORCE)


def _fusermount(
    arguments: list[str], comm_fd: int | None = None
) -> "subprocess.CompletedProcess[str]":
    environment = dict(os.environ)
    if comm_fd is not None:
        environment["_FUSE_COMMFD"] = str(comm_fd)
    try:
        return subprocess.run(
            ["fusermount3", *arguments],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            pass_fds=() if comm_fd is None else (comm_fd,),
        )
    except FileNotFoundError:
        raise MountError("fusermount3 is missing: install the package fuse3") from None


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["fusermount3 failed"])[-1]


def default_flags() -> int:
    """The flags a mount has if no option says otherwise: a user's may not raise privileges."""
    return 0 if os.geteuid() == 0 else MS_NOSUID | MS_NODEV
