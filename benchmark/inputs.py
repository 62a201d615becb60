"""What the workloads copy from: a source tree, as files, as an archive and as a repository."""

import os
import shutil
import sysconfig
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from benchmark.limits import mount_tmpfs
from benchmark.programs import need, run

_LEFT_OUT = {"__pycache__", "site-packages", "dist-packages"}


class Inputs:
    """Files of Python's standard library in memory, so that reading them costs all the same."""

    def __init__(self, place: Path, files: int) -> None:
        self.place = place
        self.archive = place / "tree.tar"
        self.repository = place / "repository"
        self._files = files

    def make(self) -> None:
        need("git", "git")
        self.place.mkdir()
        mount_tmpfs(self.place)
        for source in islice(_sources(), self._files):
            target = self.repository / source.relative_to(_library())
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        run("tar", "-C", self.repository, "-cf", self.archive, ".")
        git(self.repository, "init", "--quiet")
        git(self.repository, "add", ".")
        git(self.repository, "commit", "--quiet", "--message=all")


def git(where: Path, *words: str | Path) -> None:
    """Run git in a directory, without the user's settings."""
    me = ("-c", "user.name=bench", "-c", "user.email=bench@localhost")
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    run("git", "-C", where, *me, *words, env={**os.environ, **settings})


def _library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _sources() -> Iterator[Path]:
    for directory, subdirectories, names in os.walk(_library()):
        subdirectories[:] = sorted(set(subdirectories) - _LEFT_OUT)
        for name in sorted(names):
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink():
                yield path
