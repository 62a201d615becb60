"""Run the table by hand on any directory: ``python -m tests.posix DIR``."""

from __future__ import annotations

import argparse
import fnmatch
import os
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

from tests.posix.table import DOCUMENTED, Check, all_checks, run


def main() -> int:
    """Print how each check went; 1 if any failed."""
    arguments = parsed()
    chosen = [row for row in all_checks() if fnmatch.fnmatch(row.id, arguments.only)]
    directory = Path(tempfile.mkdtemp(prefix="posix-", dir=arguments.directory))
    directory.chmod(0o755)
    try:
        outcomes = Counter(how_goes(row, directory, frozenset(arguments.lacks)) for row in chosen)
    finally:
        # rm copes with trees that are deeper than any path.
        subprocess.run(["rm", "-rf", "--", directory], check=True)
    say(", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()))
    return 1 if outcomes["FAILED"] else 0


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.posix", description=__doc__)
    parser.add_argument("directory", type=Path, help="on the filesystem to check")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="such as 'rename/*'")
    parser.add_argument(
        "--lacks",
        action="append",
        default=[],
        choices=sorted(DOCUMENTED),
        help="what the filesystem is known to lack (again for more)",
    )
    return parser.parse_args()


def how_goes(row: Check, directory: Path, lacks: frozenset[str]) -> str:
    """Run one check, print its outcome and return it."""
    trouble = ""
    try:
        outcome = run(row, directory, lacks).value
    except (OSError, AssertionError) as error:
        outcome, trouble = "FAILED", "\n" + "".join(traceback.format_exception(error)).rstrip()
    say(f"{row.id}: {outcome}{trouble}")
    return outcome


def say(line: str) -> None:
    """Print at once, so that a check that hangs is the one not named yet."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
