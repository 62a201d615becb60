"""PostgreSQL with its data on a mount, as a user of its own as it insists."""

import pwd
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmark.programs import BenchmarkError, run

_DEBIAN: Final = Path("/usr/lib/postgresql")
_CLIENTS: Final = 4


def postgresql_programs() -> Path | None:
    """The directory with initdb, pg_ctl and pgbench, if PostgreSQL is installed."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else sorted(_DEBIAN.glob("*/bin"))
    return next((place for place in places if (place / "initdb").exists()), None)


def postgresql_rate(mnt: Path, seconds: float) -> float:
    """Transactions a second of pgbench's default script. Raises `BenchmarkError`."""
    programs = postgresql_programs()
    if programs is None:
        raise BenchmarkError("PostgreSQL is not installed")
    data = mnt / "postgresql"
    data.mkdir(mode=0o700)
    user = _user()
    shutil.chown(data, user)
    with _server(programs, data, user):
        words = ("-h", data, "-U", user)
        bench = shutil.which("pgbench") or programs / "pgbench"
        _as(user, bench, "-i", "-q", *words, "postgres")
        said = _as(user, bench, "-c", _CLIENTS, "-T", max(1, round(seconds)), *words, "postgres")
    found = re.search(r"^tps = ([\d.]+)", said, re.MULTILINE)
    if found is None:
        raise BenchmarkError("pgbench told no rate")
    return float(found[1])


@contextmanager
def _server(programs: Path, data: Path, user: str) -> Iterator[None]:
    _as(user, programs / "initdb", "--no-sync", "--auth=trust", "-D", data)
    control = (programs / "pg_ctl", "-D", data, "-w", "-l", data / "log")
    listen = f"-c listen_addresses= -k {data}"
    _as(user, *control, "-o", listen, "start")
    try:
        yield
    finally:
        _as(user, *control, "-m", "fast", "stop")


def _user() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _as(user: str, *words: str | Path | int) -> str:
    return run("runuser", "-u", user, "--", *words, cwd="/")
