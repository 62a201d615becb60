"""Break mapfs on purpose, in a copy, and see which tests notice: `python -m tests.crash.mutate`.

Each mutation takes away one thing that keeps a promise of `docs/durability.md`. A mutation that no
test notices makes the exit code 1; one whose text is not there any more ends the run.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

_REPOSITORY = Path(__file__).parents[2]
_WITHOUT_SHRINKING = """
from hypothesis import Phase, settings
settings.register_profile("mutant", settings(), phases=[Phase.generate], database=None)
settings.load_profile("mutant")
"""
_FULL = ("tests/faults/test_full.py",)
_ERRORS = ("tests/faults/test_io_errors.py", "tests/unit/test_synced_file.py")
_LEASES = ("tests/unit/test_leases.py",)
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Mutation:
    """In a module, a piece of text that must be there once, and what takes its place.

    `tests` are those that should notice.
    """

    name: str
    module: str
    old: str
    new: str
    tests: tuple[str, ...] = ("tests/crash",)


MUTATIONS = (
    Mutation(
        "a commit tried again after a gap in the log goes by its old number",
        "store/store.py",
        "2 if has_gap else 1",
        "1",
        ("tests/unit/test_commit.py", "tests/crash/test_failing_commits.py"),
    ),
    Mutation(
        "a half that begins with what is committed is synced",
        "store/store.py",
        "self._is_retrying or self._is_overlapping:",
        "self._is_retrying:",
        ("tests/unit/test_commit.py", "tests/crash/test_failing_commits.py"),
    ),
    Mutation(
        "frames of an earlier boot stay in the log",
        "store/log.py",
        "            self._erase_frames(start)\n",
        "            pass\n",
        ("tests/unit/test_commit.py",),
    ),
    Mutation(
        "large values count as small ones",
        "store/catalog.py",
        " + large_bytes * _LARGE_TIMES",
        "",
        _FULL,
    ),
    Mutation(
        "mapped pages are given to other files",
        "store/transaction.py",
        "        self.leased = leased_pages(self._backing, freed, self._page_size)\n",
        "",
        _LEASES,
    ),
    Mutation(
        "pages that were mapped are never looked at again",
        "store/allocator.py",
        "        self._retry_leased()\n",
        "",
        _LEASES,
    ),
    Mutation(
        "a part of freed pages that is mapped is forgotten",
        "store/allocator.py",
        "        self._leased.extend(leased)\n",
        "",
        _LEASES,
    ),
    Mutation(
        "the catalog commits before the data are synced",
        "store/transaction.py",
        """        self._sync()
        if any(self.generation.tables):
            self._catalog.apply(self._with_lost())
""",
        """        if any(self.generation.tables):
            self._catalog.apply(self._with_lost())
        self._sync()
""",
    ),
    Mutation(
        "data are not synced",
        "store/transaction.py",
        "        self._sync()\n        if any",
        "        if any",
    ),
    Mutation(
        "the catalog is not synced",
        "store/catalog.py",
        "                subdir=False,\n",
        "                subdir=False,\n                sync=False,\n",
    ),
    Mutation(
        "pages are not zeroed before use, nor punched",
        "store/mapped_file.py",
        "                self._ways[0](offset, length)\n",
        "",
    ),
    Mutation(
        "pages are punched before the catalog commits",
        "store/transaction.py",
        "        self._sync()\n        if any",
        """        for extent in self.generation.freed:
            self._backing.punch(extent.start * self._page_size, extent.count * self._page_size)
        self._sync()
        if any""",
    ),
    Mutation(
        "freed pages are given away at once",
        "store/allocator.py",
        "        self._transaction.freed(extent)\n        self.pending_pages += extent.count\n\n"
        "    def _record",
        "        self.release([extent])\n        self.pending_pages += extent.count\n\n"
        "    def _record",
    ),
    Mutation(
        "freed pages are given away when a commit fails",
        "store/store.py",
        "        self.transaction.abort()\n",
        "        freed = list(self.transaction._committing.freed)\n"
        "        self.transaction.abort()\n        self.allocator.release(freed)\n",
    ),
    Mutation(
        "what a failed commit held is forgotten",
        "store/transaction.py",
        "        self._running, self._committing = self._committing, None\n",
        "        self._committing = None\n",
    ),
    Mutation(
        "the log of another boot is replayed",
        "store/log.py",
        "HALF_BYTES if half.boot_id == self._boot_id else min(half.synced, HALF_BYTES)",
        "HALF_BYTES",
    ),
    Mutation(
        "the log is not replayed",
        "store/log.py",
        "        for generation in (durable + 1, durable + 2):",
        "        for generation in ():",
    ),
    Mutation(
        "only one half of the log is replayed",
        "store/log.py",
        "        for generation in (durable + 1, durable + 2):",
        "        for generation in (durable + 1,):",
    ),
    Mutation(
        "frames are not checked against their checksums",
        "format/frames.py",
        "        if checksum != xxh3_64_intdigest(header + body):\n            return\n",
        "",
    ),
    Mutation(
        "frames of an earlier use are replayed",
        "format/frames.py",
        "        if found != generation or start + length > len(half):",
        "        generation, header = found, header\n        if start + length > len(half):",
    ),
    Mutation(
        "COUNTED records are not written",
        "filesystem/inode.py",
        "            note(Kind.COUNTED, id_key(number), self._before[number].pack())\n",
        "            pass\n",
    ),
    Mutation(
        "COUNTED records are skipped at replay",
        "store/replay.py",
        "            self.counted[id_of(key)] = Counted.unpack(value)\n",
        "            pass\n",
    ),
    Mutation(
        "FOLDED records are skipped at replay",
        "store/replay.py",
        "            self.counted.clear()\n",
        "            pass\n",
    ),
    Mutation(
        "RUN records are skipped at replay",
        "store/replay.py",
        "            self.runs[id_of(key)] = unpack_extent(value)\n",
        "            pass\n",
    ),
    Mutation(
        "STATE records are skipped at replay",
        "store/replay.py",
        "            self.state = State.unpack(value)\n",
        "            pass\n",
    ),
    Mutation(
        "FIXED records are skipped at replay",
        "store/replay.py",
        "        if whole is not None:\n",
        "        if False:\n",
    ),
    Mutation(
        "a directory whose totals changed is logged without them",
        "filesystem/inode.py",
        "            elif number in self._retotalled:\n",
        "            elif False:\n",
    ),
    Mutation(
        "requests that wait for a commit are forgotten by it",
        "store/store.py",
        "            self._name_requests(self.log, self.state.commits)\n            if not",
        "            if not",
    ),
    Mutation(
        "a full log drops operations",
        "filesystem/durability.py",
        "        return self.store.log is not None and self.store.log.is_closed\n",
        "        return False\n",
    ),
    Mutation(
        "a half that is still needed is overwritten",
        "store/log.py",
        "half.generation > durable and self._counting(half)",
        "False",
    ),
    Mutation(
        "what was replayed is not committed",
        "filesystem/filesystem.py",
        "        if self.store.replayed.is_needed:\n            self.commit()\n",
        "",
    ),
    Mutation(
        "an operation that raises is not logged",
        "filesystem/durability.py",
        """        except BaseException:
            if self.logs_calls:
                self.log_operation()
            raise
""",
        """        except BaseException:
            raise
""",
    ),
    Mutation(
        "runs are not recorded as pending",
        "store/allocator.py",
        "            run.recorded = run.start\n",
        "            self._transaction.delete(Table.PENDING, id_key(run.start))\n",
    ),
    Mutation(
        "the log counts before its data are synced",
        "store/transaction.py",
        "        known = self._backing.lost\n",
        "        known = self._backing.lost\n        self._log.sync(self._position)\n",
    ),
    Mutation(
        "what is logged while the data are synced counts as well",
        "store/transaction.py",
        "            self._log.sync(self._position)\n",
        "            self._log.sync(self._log.position)\n",
    ),
    Mutation(
        "pages are taken and zeroed without a sync",
        "store/transaction.py",
        "    def backing_changed(self) -> None:\n",
        "    def backing_changed(self) -> None:\n        return\n",
        ("tests/unit/test_commit.py",),
    ),
    Mutation(
        "an fsync leaves the log for later",
        "store/transaction.py",
        "            self._log.sync(self._position)\n",
        "            pass\n",
    ),
    Mutation(
        "fdatasync leaves more than times for later",
        "store/store.py",
        "            if not only_times:\n",
        "            if False:\n",
    ),
    Mutation(
        "no reserve is kept for deletions",
        "store/catalog.py",
        "            fallocate(self._fd, FALLOC_FL_KEEP_SIZE, start, end - start)\n",
        "            pass\n",
        _FULL,
    ),
    Mutation(
        "names are taken that a full host cannot commit",
        "store/catalog.py",
        "            self._set_aside(self._end, needed + self._reserve_bytes // 2)\n",
        "            pass\n",
        _FULL,
    ),
    Mutation(
        "pages are not written again after a sync that failed",
        "store/synced_file.py",
        "        if self._is_failed:\n            self._rescue()\n",
        "",
        _ERRORS,
    ),
    Mutation(
        "a sync that failed is forgotten by the next",
        "store/synced_file.py",
        "            self._is_failed = True\n",
        "            self._rescue()\n",
        _ERRORS,
    ),
    Mutation(
        "lost bytes are not recorded",
        "store/transaction.py",
        "META_LOST: lost or None",
        "META_LOST: None",
        _ERRORS,
    ),
    Mutation(
        "fsync does not tell of lost bytes",
        "filesystem/placement.py",
        "        if lost and any(lost.touches(*run) for run in self.stored(number)):\n",
        "        if False:\n",
        _ERRORS,
    ),
    Mutation(
        "the log is trusted after a sync that failed",
        "store/store.py",
        "        self.backing.on_error(log.mark_failed)\n",
        "",
        _ERRORS,
    ),
    Mutation(
        "changes are taken although the catalog cannot be written",
        "filesystem/durability.py",
        "            self.is_failed = True\n",
        "            pass\n",
        _ERRORS,
    ),
)


def copy_of_repository(target: Path) -> None:
    for name in ("mapfs", "tests"):
        shutil.copytree(
            _REPOSITORY / name, target / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(_REPOSITORY / "pyproject.toml", target)


def caught_by(mutation: Mutation, directory: Path, tests: list[str]) -> list[str]:
    """The tests that fail with the mutation."""
    copy_of_repository(directory)
    path = directory / "mapfs" / mutation.module
    text = path.read_text()
    if text.count(mutation.old) != 1:
        sys.exit(f"{mutation.name}: the text to replace is in {mutation.module} not once")
    path.write_text(text.replace(mutation.old, mutation.new))
    with (directory / "tests/crash/conftest.py").open("a") as conftest:
        conftest.write(_WITHOUT_SHRINKING)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *tests, "-q", "--tb=line", "--maxfail=8"],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(directory)},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode not in (0, 1):
        sys.exit(done.stdout + done.stderr)
    return sorted({name.rpartition("/")[2] for name in _FAILED.findall(done.stdout)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="try only mutations whose name holds one")
    parser.add_argument("--tests", nargs="+", help="run these instead of those that should notice")
    given = parser.parse_args()
    survivors = 0
    for mutation in MUTATIONS:
        if given.words and not any(word in mutation.name for word in given.words):
            continue
        with tempfile.TemporaryDirectory(prefix="mapfs-mutant-") as name:
            caught = caught_by(mutation, Path(name), given.tests or list(mutation.tests))
        survivors += not caught
        said = "\n".join(f"    {test}" for test in caught) or "    NOT NOTICED"
        sys.stdout.write(f"{mutation.name}\n{said}\n")
        sys.stdout.flush()
    sys.exit(survivors > 0)


if __name__ == "__main__":
    main()
