"""mapfs itself, of this or another checkout, in its default or given settings."""

import shutil
from pathlib import Path

from benchmark.programs import BenchmarkError, run, version_line
from benchmark.system import FuseSystem, Role


class Mapfs(FuseSystem):
    """mapfs with a store on the disk that the others use."""

    role = Role.MAPFS

    def __init__(
        self, place: Path, image_bytes: int, name: str, program: Path, *options: str
    ) -> None:
        super().__init__(place, image_bytes)
        self.name = name
        self._program = str(program)
        self._options = options

    def install(self) -> None:
        known = run(self._program, "mount", "--help")
        for option in self._options:
            if (name := option.partition("=")[0]) not in known:
                raise BenchmarkError(f"this mapfs has no option {name}")

    def version(self) -> str:
        return version_line(self._program, "--version")

    def create(self) -> None:
        shutil.rmtree(self._store, ignore_errors=True)
        run(self._program, "mkfs", self._store, "--size", self.image_bytes)

    @property
    def _store(self) -> Path:
        return self.place / "store.mapfs"

    def serve(self) -> list[str]:
        options = ["--foreground", "--allow-other", *self._options]
        return [self._program, "mount", *options, str(self._store), str(self.mnt)]
