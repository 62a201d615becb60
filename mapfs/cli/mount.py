"""mapfs mount: mount a store and serve it in the background."""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from mapfs.cli.completion import store_then_directory
from mapfs.cli.logs import log_handler, log_to
from mapfs.cli.parameters import SIZE
from mapfs.errors import DaemonError, MapfsError, UsageError

if TYPE_CHECKING:
    from mapfs.fuse.options import MountOptions

_READY: Final = b"ready"
_MESSAGE_BYTES: Final = 4096


@click.command("mount")
@click.argument(
    "paths", nargs=-1, required=True, metavar="[STORE] MNT", shell_complete=store_then_directory
)
@click.option("-o", "options", multiple=True, metavar="OPTIONS", help="The usual comma list.")
@click.option("--ephemeral", type=SIZE, help="Instead of STORE: in memory, up to this size.")
@click.option("--read-only", is_flag=True, help="Never write a byte. (-o ro)")
@click.option("--allow-other", is_flag=True, help="Let other users in. (-o allow_other)")
@click.option("--acl/--no-acl", default=None, help="POSIX ACLs (default: on). (-o acl, noacl)")
@click.option(
    "--cache",
    type=click.Choice(["writeback", "writethrough"]),
    help="Gather writes in the kernel, or pass each on at once. (-o cache=…)",
)
@click.option("--commit", metavar="SECONDS", help="Between commits (default: 5). (-o commit=…)")
@click.option(
    "--address-space", metavar="SIZE", help="The most to map at a time. (-o address_space=…)"
)
@click.option(
    "--cpu-latency",
    metavar="MICROSECONDS",
    help="How long processors may take to wake up while requests come, or off. (-o cpu_latency=…)",
)
@click.option(
    "--xattrs",
    type=click.Choice(["hidden", "rootonly", "always"]),
    help="Where user.mapfs.* is listed (default: nowhere). (-o xattrs=…)",
)
@click.option(
    "--transport",
    type=click.Choice(["auto", "wire", "pyfuse3"]),
    help="What speaks to the kernel (default: auto, which is wire). (-o transport=…)",
)
@click.option(
    "--metrics",
    metavar="ADDRESS",
    help="Serve metrics for Prometheus at [HOST:]PORT (default host: 127.0.0.1). (-o metrics=…)",
)
@click.option("--foreground", is_flag=True, help="Stay in the foreground, log to standard error.")
@click.option(
    "--log",
    type=click.Path(path_type=Path),
    help="Log to this file (default: the journal, or a file under ~/.local/state).",
)
def command(
    *,
    paths: tuple[str, ...],
    options: tuple[str, ...],
    ephemeral: int | None,
    foreground: bool,
    log: Path | None,
    **switches: str | bool | None,
) -> None:
    """Mount the store STORE on the directory MNT.

    Returns when the mount is ready. Unmount with `mapfs umount MNT`.

    \b
    mapfs mount data.mapfs mnt
    mapfs mount data.mapfs mnt --read-only -o noatime
    mapfs mount --ephemeral 1G mnt
    """
    words = ",".join(filter(None, [*options, *_as_options(switches)]))
    is_ephemeral = ephemeral is not None
    if len(paths) != (1 if is_ephemeral else 2):
        raise UsageError(
            "--ephemeral takes a mount point only"
            if is_ephemeral
            else "give a store and a mount point"
        )
    if foreground and log:
        raise UsageError("--foreground logs to standard error: leave --log out")
    store = None if is_ephemeral else Path(paths[0])
    mount_store(store, Path(paths[-1]), words, ephemeral=ephemeral, foreground=foreground, log=log)


def _as_options(switches: dict[str, str | bool | None]) -> Iterator[str]:
    """The switches as the `-o` options they stand for."""
    flags = {"read_only": "ro", "allow_other": "allow_other"}
    for name, value in switches.items():
        if name == "acl" and value is not None:
            yield "acl" if value else "noacl"
        elif name in flags and value:
            yield flags[name]
        elif isinstance(value, str):
            yield f"{name}={value}"


def mount_store(
    store: Path | None,
    mountpoint: Path,
    words: str,
    *,
    ephemeral: int | None = None,
    foreground: bool = False,
    log: Path | None = None,
) -> None:
    """Mount and, unless in the foreground, return once another process serves the mount.

    Raises whatever kept the mount from being ready. Without a store `ephemeral` is the size, in
    bytes, of one in memory.
    """
    from mapfs.fuse.device import check_mountpoint, default_flags
    from mapfs.fuse.options import MountOptions, Transport

    options = MountOptions(flags=default_flags()).with_text(words)
    # Later nobody may look at the mount to find out what the kernel calls it.
    store, mountpoint = store and store.absolute(), mountpoint.resolve()
    check_mountpoint(mountpoint)
    _check_cpu_latency(options)
    log = log and log.absolute()

    def serve(detach: Callable[[], None], on_ready: Callable[[], None]) -> int:
        if store is None or options.transport is Transport.PYFUSE3:
            _serve(store, ephemeral, mountpoint, options, on_ready)
            return 0
        from mapfs.cli.resume import Supervision

        supervision = Supervision(store, mountpoint, words, log, is_foreground=foreground)
        return supervision.supervisor().run(detach, on_ready)

    if foreground:
        log_to(None)
        sys.exit(serve(lambda: None, lambda: None))
    inherited = _open_descriptors()
    handler = log_handler(log)

    def daemon(detach: Callable[[], None], on_ready: Callable[[], None]) -> int:
        _close_all(inherited)
        log_to(handler)
        return serve(detach, on_ready)

    _in_background(daemon)


def _check_cpu_latency(options: "MountOptions") -> None:
    """Raise what is wrong with asking for it, while there is somebody to tell."""
    from mapfs.fuse import cpu_latency
    from mapfs.fuse.options import Transport

    if options.cpu_latency in (None, cpu_latency.NO_BOUND):
        return
    if options.transport is Transport.PYFUSE3:
        raise UsageError("cpu_latency needs the transport wire")
    cpu_latency.check()


def _serve(
    store: Path | None,
    ephemeral: int | None,
    mountpoint: Path,
    options: "MountOptions",
    on_ready: Callable[[], None],
) -> None:
    """Open the store, which must not cross a fork, and serve it without a supervisor.

    One in memory belongs to the process that made it. And through pyfuse3 it is libfuse that
    answers FUSE_INIT, which is of an age that cannot have requests sent again.
    """
    from mapfs.filesystem.filesystem import Filesystem
    from mapfs.fuse.session import Job, serve
    from mapfs.fuse.worker import open_filesystem
    from mapfs.store.mkfs import machine_page_size
    from mapfs.store.opening import ephemeral_store

    job = Job(store, mountpoint, options)
    if store is None:
        filesystem = Filesystem(
            ephemeral_store(
                ephemeral or 0, machine_page_size(), address_space=options.address_space
            ),
            listing=options.listing,
            access_times=options.access_times,
            acl=options.acl,
        )
    else:
        filesystem = open_filesystem(job)
    with contextlib.closing(filesystem):
        serve(filesystem, job, on_ready)


Daemon = Callable[[Callable[[], None], Callable[[], None]], int]


def _in_background(daemon: Daemon) -> None:
    """Run `daemon` in a process of its own session; return when it is ready, or raise for it.

    It is given two functions: `detach` lets go of the caller, for each process that it starts, and
    `on_ready` says that it is ready and lets go.
    """
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            message = pipe.read(_MESSAGE_BYTES)
        if message != _READY:
            raise DaemonError.from_message(message)
        return
    os.close(reader)
    os.setsid()
    os._exit(_run_daemon(daemon, writer))


def _run_daemon(daemon: Daemon, writer: int) -> int:
    """The daemon's exit code; what went wrong goes to the pipe until ready, then to the log."""
    ready = False

    def detach() -> None:
        _detach_from_terminal()
        os.close(writer)

    def on_ready() -> None:
        nonlocal ready
        ready = True
        os.write(writer, _READY)
        detach()

    try:
        return daemon(detach, on_ready)
    except BaseException as error:
        known = isinstance(error, MapfsError | OSError)
        exit_code = error.exit_code if isinstance(error, MapfsError) else 1
        if ready:
            logging.getLogger(__name__).log(logging.ERROR, "%s", error, exc_info=not known)
        else:
            os.write(writer, DaemonError.to_message(error)[:_MESSAGE_BYTES])
        return exit_code


def _open_descriptors() -> list[int]:
    """What this process has open now, but not what it opens to find that out."""
    descriptors = []
    for entry in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):
            os.fstat(int(entry.name))
            descriptors.append(int(entry.name))
    return descriptors


def _close_all(descriptors: list[int]) -> None:
    """Close what the caller had open: whoever reads from the other end must not wait for us."""
    for fd in descriptors:
        if fd > 2:
            with contextlib.suppress(OSError):
                os.close(fd)


def _detach_from_terminal() -> None:
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
