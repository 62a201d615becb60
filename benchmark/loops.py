"""Loops of system calls, timed in a process of their own.

`python -I loops.py LOOP DIRECTORY COUNT [PER_DIRECTORY]` prints the seconds that one round of
LOOP took on average. The loop itself, in Python, is in it: about a microsecond.
LOOP-again measures what is warm, for long enough to be more than noise.
With PER_DIRECTORY the files are in subdirectories of that many, otherwise all in DIRECTORY.
"""

import gc
import os
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

SMALL_BYTES: Final = 3000
SQLITE_SECONDS: Final = 5.0  # after which inserting ends, however far it has come
_AGAIN: Final = "-again"
_AGAIN_SECONDS: Final = 0.2
_CONTENT: Final = os.urandom(SMALL_BYTES)


def file_paths(directory: Path, count: int, per_directory: int | None) -> list[str]:
    if per_directory is None:
        return [f"{directory}/{number:06}" for number in range(count)]
    return [
        f"{directory}/{number // per_directory:04}/{number % per_directory:03}"
        for number in range(count)
    ]


def create(path: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(fd, _CONTENT)
    os.close(fd)


def create_empty(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))


def read(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.read(fd, SMALL_BYTES)
    os.close(fd)


PATH_LOOPS: Final[dict[str, Callable[[str], object]]] = {
    "create": create,
    "create-empty": create_empty,
    "read": read,
    "stat": os.stat,
    "unlink": os.unlink,
}


def each_path(action: Callable[[str], object], paths: list[str]) -> float:
    begin = time.perf_counter()
    for path in paths:
        action(path)
    return (time.perf_counter() - begin) / len(paths)


def each_path_again(action: Callable[[str], object], paths: list[str]) -> float:
    """As `each_path`, but warm: once without looking at the clock, then over and over."""
    each_path(action, paths)
    begin, rounds = time.perf_counter(), []
    while time.perf_counter() - begin < _AGAIN_SECONDS:
        rounds.append(each_path(action, paths))
    return sum(rounds) / len(rounds)


def insert(database: Path, count: int, per_transaction: int) -> float:
    """Insert rows of 100 bytes into a table of SQLite, durably as it does by default."""
    with sqlite3.connect(database, isolation_level=None) as connection:
        connection.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, text TEXT)")
        begin = time.perf_counter()
        done = 0
        while done < count and time.perf_counter() - begin < SQLITE_SECONDS:
            connection.execute("BEGIN")
            for number in range(done, done + per_transaction):
                connection.execute("INSERT INTO rows VALUES (?, ?)", (number, "x" * 100))
            connection.execute("COMMIT")
            done += per_transaction
        return (time.perf_counter() - begin) / done


def main() -> None:
    loop, directory, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    size = int(sys.argv[4]) if len(sys.argv) > 4 else None
    gc.disable()
    if loop == "sqlite":
        took = insert(directory, count, size or 1)
    else:
        measure = each_path_again if loop.endswith(_AGAIN) else each_path
        took = measure(PATH_LOOPS[loop.removesuffix(_AGAIN)], file_paths(directory, count, size))
    sys.stdout.write(f"{took!r}\n")


if __name__ == "__main__":
    main()
