"""The process that keeps a mount: it holds the connection, and a worker serves it.

When the worker dies, another one takes the same connection over and has everything sent again
that was not answered (FUSE_NOTIFY_RESEND, Linux 6.9): programs notice a pause. The supervisor
opens no store and runs no scheduler, and so has next to nothing that could end it. It imports what
a worker needs, so that a worker is a fork away, and sleeps until a signal comes.
"""

import contextlib
import gc
import logging
import math
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from mapfs.errors import DaemonError, MountError
from mapfs.fuse import device, worker
from mapfs.fuse.session import HAND_OVER, LEAVE, Connection, Job
from mapfs.fuse.wire import loop as _loop  # noqa: F401 (for the workers)
from mapfs.fuse.wire.negotiation import negotiate
from mapfs.fuse.wire.protocol import Init
from mapfs.fuse.worker import HANDED_OVER, MESSAGE_BYTES, OPENED, READY
from mapfs.mounts import device_at

_log = logging.getLogger(__name__)

# Asks a supervisor to go on with the code that is installed now.
RESTART: Final = signal.SIGUSR1
_SIGNALS: Final = (*LEAVE, RESTART, signal.SIGCHLD)
# A worker that lived so long was not killed by what it began with.
_LONG_LIFE_SECONDS: Final = 1.0
# Deaths in a row before a mount is given up. SIGKILL comes from outside, whatever the worker does.
_MOST_DEATHS: Final = 5
_MOST_KILLS: Final = 50
_CHECK: Final = "import mapfs.cli.resume"


class _Worker(NamedTuple):
    """A worker; `began` is when it began to serve, by `time.monotonic`; infinite until then."""

    pid: int
    began: float
    channel: socket.socket


class Supervisor:
    """Keeps one mount. Belongs to a process that has no other thread."""

    def __init__(
        self,
        job: Job,
        restart: Callable[[Connection], None],
        connection: Connection | None = None,
    ) -> None:
        """`restart` executes the program anew, for it to go on with a connection.

        `connection` is one on which somebody else was the supervisor; without it, it is made.
        """
        self._job = job
        self._restart = restart
        self._connection = connection
        self._asked_to_leave: int | None = None
        self._deaths = self._kills = 0

    def run(self, detach: Callable[[], None], on_ready: Callable[[], None]) -> int:
        """Mount, call `on_ready`, and see to it that it is served; returns the exit code.

        `detach` is called in the first worker before that. Raises `MountError` if the mount does
        not come to be, or is given up.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        if self._job.options.metrics is not None:
            from mapfs.fuse import metrics as _metrics  # noqa: F401 (for the workers)
        gc.freeze()  # or the first collection in a worker would copy all that it shares
        if self._connection is None:
            self._mount_with(detach)
        elif not self._has_begun(detach):
            self._replace(self._reaped())
        on_ready()
        while True:
            code = self._wait()
            if code == HANDED_OVER:
                self._go_on_anew()
            elif not _is_alive(self._kept.fd) or code == 0:
                return abs(code)
            self._replace(code)

    def _mount_with(self, detach: Callable[[], None]) -> None:
        """Have the first worker begin: if it does not, there shall be no mount."""
        self._worker = self._fork(detach)
        try:
            self._begin()
        except BaseException:
            self._take_back()
            raise

    def _has_begun(self, detach: Callable[[], None]) -> bool:
        """Whether a new worker serves the mount that there is."""
        self._worker = self._fork(detach)
        try:
            self._begin()
        except DaemonError as error:
            _log.warning("%s", error)
            return False
        return True

    def _reaped(self) -> int:
        """The exit code of a worker that has not begun, or minus the signal that ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(self._worker.pid, 0)[1])

    def _go_on_anew(self) -> None:
        """Execute the program that is installed now; returns if that is not to be."""
        if self._asked_to_leave is not None:
            return  # who is executed would know nothing of it
        try:
            self._restart(self._kept)
        except OSError as error:
            _log.error("no restart: %s", error)

    @property
    def _kept(self) -> Connection:
        assert self._connection is not None  # once a worker has begun
        return self._connection

    def _fork(self, detach: Callable[[], None]) -> _Worker:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        is_taken_over = self._connection is not None
        pid = os.fork()
        if pid == 0:
            ours.close()
            if self._connection is not None:
                os.close(self._connection.fd)  # it gets its own
            os._exit(worker.run(self._job, theirs, is_taken_over=is_taken_over, detach=detach))
        theirs.close()
        return _Worker(pid, math.inf, ours)

    def _begin(self) -> None:
        """Go through a worker's beginning with it. Raises `DaemonError` if it does not serve."""
        with self._worker.channel as channel:
            self._expect(OPENED)
            if self._connection is None:
                self._connection = self._mount()
            with contextlib.suppress(OSError):  # if it died there is no answer either
                worker.send_connection(channel, self._connection)
            self._expect(READY)
        takeovers = self._connection.takeovers + 1
        self._connection = self._connection._replace(takeovers=takeovers)
        self._worker = self._worker._replace(began=time.monotonic())
        if self._asked_to_leave is not None:
            os.kill(self._worker.pid, self._asked_to_leave)

    def _take_back(self) -> None:
        """After a beginning that failed: leave neither a mount nor a worker."""
        if self._connection is not None:
            os.close(self._connection.fd)
            device.abort(self._connection.device, self._job.mountpoint)
            with contextlib.suppress(MountError):
                device.unmount(self._job.mountpoint, lazy=True)
        os.waitpid(self._worker.pid, 0)

    def _expect(self, message: bytes) -> None:
        said = b""
        with contextlib.suppress(ConnectionResetError):  # it died before it took the connection
            said = self._worker.channel.recv(MESSAGE_BYTES)
        if said != message:
            raise DaemonError.from_message(said)

    def _mount(self) -> Connection:
        job = self._job
        fd = device.mount(job.source, job.mountpoint, job.options)
        flags = negotiate(fd, job.options)
        if Init.HAS_RESEND not in flags:
            _log.warning(
                "this kernel cannot send requests again (Linux 6.9): no worker is replaced"
            )
        return Connection(fd, flags, 0, device_at(job.mountpoint) or 0)

    def _wait(self) -> int:
        """The exit code of the worker when it ends, or minus the signal that ended it."""
        while True:
            found = signal.sigwaitinfo(_SIGNALS)
            if found.si_signo in LEAVE:
                self._asked_to_leave = found.si_signo
                os.kill(self._worker.pid, found.si_signo)
            elif found.si_signo == RESTART:
                self._hand_over()
            elif (ended := os.waitpid(self._worker.pid, os.WNOHANG)) != (0, 0):
                return os.waitstatus_to_exitcode(ended[1])

    def _hand_over(self) -> None:
        reason = reason_against(sys.executable)
        if reason is None:
            os.kill(self._worker.pid, HAND_OVER)
        else:
            _log.error("no restart: what is installed now cannot be used: %s", reason)

    def _replace(self, code: int) -> None:
        """Have another worker take over. Raises `MountError` if the mount is given up."""
        while True:
            self._count(code)
            _log.warning("worker %d %s: another one takes over", self._worker.pid, _ending(code))
            if self._has_begun(lambda: None):
                return
            code = self._reaped()
            if self._asked_to_leave is not None or signal.sigtimedwait(LEAVE, 0) is not None:
                self._give_up(code)

    def _count(self, code: int) -> None:
        if time.monotonic() - self._worker.began > _LONG_LIFE_SECONDS:
            self._deaths = self._kills = 0
        if code == -signal.SIGKILL:
            self._kills += 1
        else:
            self._deaths += 1
        has_resend = Init.HAS_RESEND in Init(self._kept.flags)
        if not has_resend or self._deaths >= _MOST_DEATHS or self._kills >= _MOST_KILLS:
            self._give_up(code)

    def _give_up(self, code: int) -> None:
        """Take the mount away: programs that use it get errors, and are not left waiting."""
        mountpoint = self._job.mountpoint
        os.close(self._kept.fd)
        device.abort(self._kept.device, mountpoint)  # what has the kernel write back holds it, too
        try:
            device.unmount(mountpoint, lazy=True)
        except MountError as error:
            _log.warning("%s", error)
        raise MountError(
            f"{mountpoint}: the worker {_ending(code)}, and so did"
            f" {self._deaths + self._kills - 1} before: unmounted (the log has what was answered)"
        )


def _ending(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def _is_alive(fd: int) -> bool:
    """Whether a connection is still mounted, or in use (`fuse_dev_poll` in fs/fuse/dev.c)."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return all(not event & select.POLLERR for _, event in poll.poll(0))


def reason_against(python: str) -> str | None:
    """Why an interpreter cannot run the code that is installed for it now; None if it can."""
    done = subprocess.run([python, "-P", "-c", _CHECK], check=False, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or ["no reason given"])[-1]
