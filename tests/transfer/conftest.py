"""A store to copy into, checked when the test ends, and copying without the command."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from mapfs.filesystem.filesystem import Filesystem
from mapfs.store.opening import open_store
from mapfs.transfer.archives import archive_source, archive_target
from mapfs.transfer.copying import Source, copy
from mapfs.transfer.directory import DirectorySource
from mapfs.transfer.from_store import StoreSource
from mapfs.transfer.into_directory import DirectoryTree
from mapfs.transfer.into_store import StoreTree
from mapfs.transfer.outcome import Outcome
from tests.property import profiles
from tests.unit.support import assert_sound, new_bundle

profiles.load()


class Vault:
    """A store at `path` that is opened for each copy into it and out of it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def opened(self, *, read_only: bool = False) -> Iterator[Filesystem]:
        with contextlib.closing(
            Filesystem(open_store(self.path, read_only=read_only))
        ) as filesystem:
            yield filesystem

    def take(self, source: Path | str, top: bytes = b"", outcome: Outcome | None = None) -> Outcome:
        """Import a directory or file, or an archive."""
        outcome = outcome or Outcome()
        with self.opened() as filesystem, archive_source(str(source), outcome) as archive:
            plain: Source = archive or DirectorySource(str(source), outcome)
            copy(plain, StoreTree(filesystem, top), outcome)
        return outcome

    def give(self, target: Path | str, path: bytes = b"", name: bytes = b"") -> Outcome:
        """Export to a directory, or to an archive by its name."""
        outcome = Outcome()
        with contextlib.ExitStack() as stack:
            if "." in Path(target).name:
                into, _ = stack.enter_context(archive_target(str(target)))
            else:
                into = stack.enter_context(contextlib.closing(DirectoryTree(str(target))))
            filesystem = stack.enter_context(self.opened(read_only=True))
            copy(StoreSource(filesystem, filesystem.resolve(path), name, outcome), into, outcome)
        return outcome


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    """An empty store of 64 MiB, sound at the end."""
    made = Vault(new_bundle(tmp_path / "vault.mapfs", 16384))
    yield made
    with made.opened() as filesystem:
        assert_sound(filesystem)
