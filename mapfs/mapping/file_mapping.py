"""`FileMapping`: a file of a store as one range of memory, which is the store file's own pages."""

import errno
import mmap
import os
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self, TypeVar

from mapfs.errors import NotSupportedError
from mapfs.format.layout import Layout, Piece
from mapfs.store.machine_pages import HUGE_PAGE_BYTES, PAGE_BYTES
from mapfs.store.syscalls import address_of, map_fixed, map_zeros

_MAP_NORESERVE: Final = 0x4000  # in Python's mmap from 3.13 on
_MAX_MAP_COUNT: Final = Path("/proc/sys/vm/max_map_count")

Mapped = TypeVar("Mapped", bound=mmap.mmap)


class FileMapping(mmap.mmap):
    """A file as memory, to be used like `mmap.mmap`; made by `mapfs.open_mapping`.

    Where Python's mapping has one file behind it, the extents of this one are put side by side:
    its pages are those of the store file, which every process shares. Holes read as zeros.

    While it exists, nothing but this file's bytes are in it, whatever happens to the file; see
    `docs/mmap.md` for what is seen of changes. It may be read in any thread. `close` raises
    `BufferError` while views of it (a `memoryview`, an array) exist.

    Reading it raises SIGBUS, which ends the process, where the disk cannot read a page.
    """

    layout: Layout
    _on_flush: Callable[[], None] | None
    _finish: Callable[[], object]

    def __new__(
        cls,
        fd: int,
        layout: Layout,
        *,
        on_flush: Callable[[], None] | None = None,
        on_close: Callable[[], None] = lambda: None,
    ) -> Self:
        """Map what `layout` says of the store file `fd`, which is not needed any more then.

        Writable if there is an `on_flush`, which is called when what was written is on the disk;
        then the file must have no holes. `on_close` is called when the mapping is gone.

        Raises `ValueError` for an empty file, as `mmap.mmap` does, `NotSupportedError` where pages
        of the store are smaller than the machine's, and `OSError` (ENOMEM) if the process may not
        have so many mappings or so much address space.
        """
        _require_mappable(layout)
        mapping = _reserved(cls, fd, layout, writable=on_flush is not None)
        mapping.layout = layout
        mapping._on_flush = on_flush  # noqa: SLF001 (its own)
        mapping._finish = weakref.finalize(mapping, on_close)  # noqa: SLF001
        return mapping

    @property
    def extents(self) -> tuple[Piece, ...]:
        """Where the file is: offset in it, offset in the store file, and length, in bytes."""
        return self.layout.pieces

    def flush(self, offset: int = 0, size: int | None = None) -> None:
        """Make what was written durable, and the file's mtime the present. Raises `OSError`.

        `offset` and `size` are as in `mmap.mmap.flush`. For the thread that opened the mapping.
        """
        if self._on_flush is not None:
            super().flush(offset, len(self) - offset if size is None else size)
            self._on_flush()

    def size(self) -> int:
        """The bytes of the file when it was mapped."""
        return self.layout.size

    def close(self) -> None:
        """Unmap the file, after `flush`. Raises `BufferError` while views of it exist."""
        if not self.closed:
            self.flush()
            super().close()
            self._finish()

    def __exit__(self, *_: object) -> None:
        """Close it: `mmap.mmap` would call its own `close`."""
        self.close()

    def resize(self, newsize: int) -> None:
        """Not possible: raises `TypeError`, as for a mapping that can only be read."""
        raise TypeError(f"a file of a store cannot be resized to {newsize} by its mapping")


def _reserved(cls: type[Mapped], fd: int, layout: Layout, *, writable: bool) -> Mapped:
    """A mapping of Python's for the file, which unmaps all of its range when it ends."""
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    offset = _phase(layout.pieces)
    if offset + layout.size <= os.lseek(fd, 0, os.SEEK_END):
        # Any part of the store: what counts is the address that the kernel chooses for it.
        mapping = mmap.mmap.__new__(
            cls, fd, layout.size, mmap.MAP_SHARED, protection, offset=offset
        )
    else:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        mapping = mmap.mmap.__new__(cls, -1, layout.size, flags, protection)
    try:
        _fill(address_of(mapping), fd, layout, writable=writable)
    except BaseException:
        mmap.mmap.close(mapping)
        raise
    return mapping


def _phase(pieces: Sequence[Piece]) -> int:
    """The place in the store, up to a multiple of the huge page, that goes with the first byte.

    So that the largest piece gets addresses at which its large pages of the page cache can be
    mapped as such: the processor then needs less room for their addresses.
    """
    if not pieces:
        return 0
    largest = max(pieces, key=lambda piece: piece.length)
    return (largest.store_offset - largest.offset) % HUGE_PAGE_BYTES


def _fill(address: int, fd: int, layout: Layout, *, writable: bool) -> None:
    """Put the pieces in their places, and zeros where there are none."""
    end = -(-layout.size // PAGE_BYTES) * PAGE_BYTES
    done = 0
    for piece in layout.pieces:
        if piece.offset > done:
            map_zeros(address + done, piece.offset - done)
        # Of the last piece no more than the page with the file's last byte.
        length = min(piece.length, end - piece.offset)
        place = address + piece.offset
        map_fixed(place, length, fd, piece.store_offset, writable=writable)
        done = piece.offset + length
    if done < end:
        map_zeros(address + done, end - done)


def _require_mappable(layout: Layout) -> None:
    if layout.size == 0:
        raise ValueError("cannot map an empty file")
    if layout.page_size % PAGE_BYTES:
        raise NotSupportedError(
            f"pages of {layout.page_size} bytes cannot be mapped where the machine's have"
            f" {PAGE_BYTES}"
        )
    most = int(_MAX_MAP_COUNT.read_text())
    if 2 * len(layout.pieces) >= most:  # holes take one each, too
        raise OSError(
            errno.ENOMEM,
            f"{len(layout.pieces)} extents are more than a process may map (vm.max_map_count ="
            f" {most})",
        )
