"""Running other programs, and installing those that are missing."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

_PATIENCE_SECONDS: Final = 300
_SAID_LINES: Final = 3


class BenchmarkError(Exception):
    """A program failed, or a system cannot be had. The message is one line for the user."""


def say(text: str) -> None:
    """Tell the user on standard error."""
    sys.stderr.write(f"bench: {text}\n")


def run(*words: str | Path | int, **options: Any) -> str:  # noqa: ANN401 (subprocess.run takes these)
    """Run a program and return its standard output.

    Raises `BenchmarkError` with the last that it said if it cannot be run, fails, or takes longer
    than five minutes.
    """
    command = [str(word) for word in words]
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_SECONDS,
            **options,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchmarkError(f"{shlex.join(command)}: {error}") from error
    if done.returncode:
        said = last_lines(done.stderr or done.stdout)
        raise BenchmarkError(f"{shlex.join(command)}: exit code {done.returncode}: {said}")
    return done.stdout


def last_lines(text: str) -> str:
    """The end of what a program said, in one line."""
    return " / ".join(text.strip().splitlines()[-_SAID_LINES:])


def need(command: str, package: str) -> None:
    """Install a Debian package if its command is missing. Raises `BenchmarkError`."""
    if shutil.which(command):
        return
    say(f"{command} is missing: installing the package {package}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt_get = ("apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300")
    run(*apt_get, "update", env=environment)
    run(*apt_get, "install", "-y", "--no-install-recommends", package, env=environment)


def version_line(*words: str) -> str:
    """What a program says of its version: the line that begins with its name, "?" if none does."""
    try:
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return "?"
    lines = (done.stdout + done.stderr).splitlines()
    name = Path(words[0]).name
    return next((line.strip() for line in lines if line.startswith(name)), "?")
