"""The kernel's own file systems, which show how fast the machine is."""

import os
import platform
import subprocess
from pathlib import Path

from benchmark.programs import need, run
from benchmark.system import Role, System, drop_caches, empty_directory, written_image


class KernelSystem(System):
    """A file system of the kernel."""

    role = Role.LIMIT

    def install(self) -> None:
        need("losetup", "mount")
        need("mkfs.ext4", "e2fsprogs")

    def version(self) -> str:
        return platform.release()


class Host(KernelSystem):
    """The file system that holds the stores, images and branches of all the others."""

    name = "host"
    caveat = "has no mount whose cache could be dropped: there its figures are warm"

    def settings(self) -> str:
        return "a directory"

    def create(self) -> None:
        empty_directory(self.mnt)

    def mount(self) -> None:
        """It is."""

    def unmount(self) -> None:
        """It stays."""

    def remount(self) -> None:
        """Nothing to drop: this is what lies beneath."""

    def cool(self) -> None:
        os.sync()
        drop_caches()


class Ext4(KernelSystem):
    """ext4 on a loop device over an image on the disk that the others use.

    The loop device reads and writes the image with direct I/O, which is nearest to a disk: one
    cache, no second copy. Only where the mount's cache alone is to be dropped does it go through
    the host's cache, which then has what lies beneath, as it does for the other systems.
    """

    name = "ext4"
    _options = "noatime"
    _device: str | None = None

    def settings(self) -> str:
        return f"loop device with direct I/O, mount -o {self._options}"

    def create(self) -> None:
        image = written_image(self.place / "image", self.image_bytes)
        run("mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0", image)

    def mount(self) -> None:
        self._mount(direct=True)

    def remount(self) -> None:
        self.unmount()
        self._mount(direct=False)

    def _mount(self, *, direct: bool) -> None:
        device = run("losetup", "--find", "--show", self.place / "image").strip()
        self._device = device
        if direct:  # refused if the host cannot; then through its cache
            subprocess.run(["losetup", "--direct-io=on", device], check=False, capture_output=True)
        run("mount", "-o", self._options, device, self.mnt)

    def unmount(self) -> None:
        run("umount", self.mnt)
        self._detach()

    def abandon(self) -> None:
        super().abandon()
        self._detach()

    def _detach(self) -> None:
        if self._device is not None:
            subprocess.run(["losetup", "--detach", self._device], check=False, capture_output=True)
            self._device = None


class Tmpfs(KernelSystem):
    """tmpfs: memory alone."""

    name = "tmpfs"
    caveat = "has no disk beneath, so it is never cold and its fsync does nothing"

    def settings(self) -> str:
        return "mount -t tmpfs"

    def create(self) -> None:
        """Each mount begins empty."""

    def mount(self) -> None:
        mount_tmpfs(self.mnt)

    def unmount(self) -> None:
        run("umount", self.mnt)

    def remount(self) -> None:
        """Nothing to drop: the cache is the file system."""

    def cool(self) -> None:
        """Nothing to drop: the cache is the file system."""


def mount_tmpfs(mountpoint: Path) -> None:
    run("mount", "-t", "tmpfs", "-o", "mode=755,size=90%", "bench", mountpoint)
