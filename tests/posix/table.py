"""The table: every check there is, what it needs, and how it is run on one directory."""

from __future__ import annotations

import errno
import importlib
import os
import pkgutil
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from tests.posix import checks
from tests.posix.expect import names_of
from tests.posix.needs import needs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# What a filesystem may lack, and the errnos with which its calls then must fail.
# None: the call succeeds, but says less, so that the check's assertion must fail.
DOCUMENTED: dict[str, tuple[int, ...] | None] = {
    "acl": (errno.EOPNOTSUPP,),
    "birth": None,
    "attribute_flags": (errno.ENOTTY, errno.ENOSYS),
    "fallocate": (errno.EOPNOTSUPP,),
    "large_xattr": (errno.ENOSPC, errno.E2BIG),
    "noatime_flag": None,
    "seek_hole": None,
    "setgid_of_others": None,
    "tmpfile": (errno.EOPNOTSUPP,),
    "user_xattr": (errno.EOPNOTSUPP,),
}
# What the surroundings may lack: no errno follows, so such a check cannot run at all.
SURROUNDINGS = frozenset({"acl_tools", "dev", "exec", "root", "suid"})


class Outcome(Enum):
    """How a check can end without failing."""

    PASSED = "passed"
    LACKING = "failed as documented"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Check:
    """One row of the table."""

    topic: str
    name: str
    function: Callable[[Path], None]
    needs: frozenset[str]

    @property
    def id(self) -> str:
        """The row's name: topic/behaviour."""
        return f"{self.topic}/{self.name}"


def all_checks() -> list[Check]:
    """Every check of every module in `checks`, in the order in which they are written."""
    rows = []
    for module_info in pkgutil.iter_modules(checks.__path__):
        module = importlib.import_module(f"{checks.__name__}.{module_info.name}")
        for name, function in vars(module).items():
            if name.startswith("check_") and function.__module__ == module.__name__:
                rows.append(
                    Check(
                        module_info.name,
                        name.removeprefix("check_"),
                        function,
                        needs_of(function),
                    )
                )
    return rows


def missing_surroundings(directory: Path) -> frozenset[str]:
    """What this process and this mount cannot offer any check."""
    flags = os.statvfs(directory).f_flag
    facts = {
        "acl_tools": shutil.which("setfacl") is not None and shutil.which("getfacl") is not None,
        "dev": not flags & os.ST_NODEV,
        "exec": not flags & os.ST_NOEXEC,
        "root": os.geteuid() == 0,
        "suid": not flags & os.ST_NOSUID,
    }
    return frozenset(name for name, holds in facts.items() if not holds)


def run(check: Check, directory: Path, lacks: frozenset[str]) -> Outcome:
    """Run one check in an empty directory of its own on a filesystem that lacks these things.

    A check whose need is lacking must fail as documented: a call that is refused otherwise, or
    that works after all, is a failure too.
    """
    if check.needs & missing_surroundings(directory):
        return Outcome.SKIPPED
    root = directory / check.id.replace("/", "-")
    root.mkdir(mode=0o755)
    with _process_state_restored():
        lacking = sorted(check.needs & lacks)
        if not lacking:
            check.function(root)
            return Outcome.PASSED
        _run_in_vain(check, root, lacking)
        return Outcome.LACKING


def _run_in_vain(check: Check, root: Path, lacking: list[str]) -> None:
    errnos = {number for name in lacking for number in DOCUMENTED[name] or ()}
    try:
        check.function(root)
    except OSError as error:
        assert error.errno in errnos, (
            f"without {lacking} it fails with {names_of(error.errno)}, not {names_of(*errnos)}"
        )
    except AssertionError:
        if all(DOCUMENTED[name] is not None for name in lacking):
            raise
    else:
        raise AssertionError(f"it works; the filesystem is said to lack {lacking}")


@contextmanager
def _process_state_restored() -> Iterator[None]:
    umask, cwd = os.umask(0o022), os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield
    finally:
        os.fchdir(cwd)
        os.close(cwd)
        os.umask(umask)
