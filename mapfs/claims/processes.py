"""Child processes that run a function, and what the kernel says of processes."""

import contextlib
import multiprocessing
import operator
import os
import resource
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from mapfs.claims.claim import CannotMeasureError
from mapfs.claims.interrupts import ignore_interrupts, uninterrupted
from mapfs.claims.memory_limit import MemoryLimit

Value = TypeVar("Value")
Said = Callable[[object], object]
# Forked, so that what a child works on need not be told. Nothing of ours runs in a thread.
_CONTEXT: Final = multiprocessing.get_context("fork")


class Memory(NamedTuple):
    """Bytes of a process in memory: its share of what it uses (PSS), and all of that (RSS)."""

    proportional: int
    resident: int


def memory_of(process: int) -> Memory:
    """What /proc/PID/smaps_rollup says (proc_pid_smaps_rollup(5))."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    sizes = {line.split()[0]: int(line.split()[1]) << 10 for line in lines[1:]}
    return Memory(sizes["Pss:"], sizes["Rss:"])


class Effort(NamedTuple):
    """What this process did: by its CPU clock, /proc/PID/io (proc_pid_io(5)) and getrusage(2)."""

    seconds: float
    read_calls: int
    read_bytes: int
    dirtied_bytes: int
    faults: int
    major_faults: int

    def less(self, other: "Effort") -> "Effort":
        """This without the other."""
        return Effort(*map(operator.sub, self, other))


def _effort() -> Effort:
    counted = io_of(os.getpid())
    usage = resource.getrusage(resource.RUSAGE_SELF)
    faults = usage.ru_minflt + usage.ru_majflt
    numbers = (counted["syscr"], counted["rchar"], counted["write_bytes"])
    return Effort(time.process_time(), *numbers, faults, usage.ru_majflt)


def io_of(process: int) -> dict[str, int]:
    """/proc/PID/io: calls and bytes."""
    lines = Path(f"/proc/{process}/io").read_text().splitlines()
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}


def effort_of(call: Callable[[], object]) -> Effort:
    """What a call asks of the kernel, without what asking the kernel for it takes."""
    idle = _effort()
    before = _effort()
    call()
    return _effort().less(before).less(before.less(idle))


def in_child(function: Callable[[], Value], limit: MemoryLimit | None = None) -> Value:
    """What `function` returns in a process of its own, which has no more memory than `limit`.

    Raises `CannotMeasureError` if it ends without an answer, as where memory does not suffice.
    """
    with children([lambda say: say(function())], limit) as (child,):
        value: Value = child.hear()
        return value


class Child:
    """A process that talks to us: it says what it has, and goes on when it is told."""

    def __init__(self, process: BaseProcess, connection: Connection) -> None:
        self._process = process
        self._connection = connection

    @property
    def pid(self) -> int:
        """Its number, until it is ended."""
        assert self._process.pid is not None  # it is started
        return self._process.pid

    def hear(self) -> Any:  # noqa: ANN401 (what it says is as its function says it)
        """The next thing that it says."""
        try:
            error, value = self._connection.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            raise CannotMeasureError(f"a process ended with exit code {code}") from None
        if error is not None:
            raise error
        return value

    def go_on(self) -> None:
        """Let it return from `say`."""
        self._connection.send(None)

    def end(self) -> None:
        """Kill it, and wait until it is gone."""
        self._connection.close()
        self._process.kill()
        self._process.join()


@contextlib.contextmanager
def children(
    functions: list[Callable[[Said], object]], limit: MemoryLimit | None = None
) -> Iterator[list[Child]]:
    """A process for each function; all are ended with the block.

    A function is given `say`, which hands something to the parent and waits until it may go on.
    """
    started: list[Child] = []
    try:
        for function in functions:
            ours, theirs = _CONTEXT.Pipe()
            process = _CONTEXT.Process(target=_run, args=(theirs, function, limit), daemon=True)
            with uninterrupted():
                process.start()
                started.append(Child(process, ours))
            theirs.close()
        yield started
    finally:
        for child in started:
            child.end()


def _run(
    connection: Connection, function: Callable[[Said], object], limit: MemoryLimit | None
) -> None:
    ignore_interrupts()

    def say(value: object) -> None:
        connection.send((None, value))
        with contextlib.suppress(EOFError):
            connection.recv()

    try:
        if limit is not None:
            limit.enter()
        function(say)
    except (CannotMeasureError, OSError, MemoryError) as error:
        connection.send((error, None))
