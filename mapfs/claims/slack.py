"""Against mmap: slack. Make files of small sizes in stores of several page sizes, and ask."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mapfs.claims.claim import (
    Axes,
    CannotMeasureError,
    Claim,
    Figure,
    Finding,
    Series,
    Side,
    Verdict,
)
from mapfs.claims.ground import Ground
from mapfs.claims.samples import Spread, rounded
from mapfs.claims.subject import STORE, Subject
from mapfs.filesystem.caller import Caller
from mapfs.filesystem.filesystem import Filesystem
from mapfs.format.records import ROOT_INODE
from mapfs.format.totals import WHAT_IF_SIZES
from mapfs.sizes import bytes_label
from mapfs.store.mkfs import StoreOptions, create_store
from mapfs.store.opening import open_store

_KIB: Final = 1 << 10
_WHOLE: Final = tuple(kib * _KIB for kib in (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, 64))
# A byte more than a whole page takes is where most is lost again.
SIZES: Final = (1, 16, 64, 256, 512, *sorted({*_WHOLE, *(size + 1 for size in _WHOLE[3:-1])}))
_JUDGED: Final = 1 * _KIB
_STORE_BYTES: Final = 256 << 20


def _measure(ground: Ground, subject: Subject) -> Finding:
    page_size = ground.settings.page_size
    found = {}
    for page in sorted({*WHAT_IF_SIZES.values(), page_size}):
        found[page] = _slacks(ground.directory / f"slack-{page}.mapfs", page)
    return judge(subject.label, found, page_size)


def judge(subject: str, found: dict[int, dict[int, int]], page_size: int) -> Finding:
    """From the slack of files of all sizes, for pages of all sizes."""
    share = _share(_JUDGED, found[page_size][_JUDGED])
    most = ", ".join(f"{_most(found[page])} in pages of {bytes_label(page)}" for page in found)
    reason = (
        f"a file of {bytes_label(_JUDGED)} loses {rounded(share)} % of its pages of"
        f" {bytes_label(page_size)}; slack exceeds the data up to {most}; every attribute is what"
        " arithmetic says"
    )
    return Finding(
        subject,
        Verdict.HOLDS if share > 50 else Verdict.FAILS,
        reason,
        figures=tuple(_figures(found)),
        series=tuple(_series(found)),
    )


def _figures(found: dict[int, dict[int, int]]) -> Iterator[Figure]:
    for page, slacks in found.items():
        for size in (_JUDGED, 5 * _KIB, 64 * _KIB):
            label = f"{bytes_label(size)} in pages of {bytes_label(page)}"
            yield Figure(label, "% slack", Spread.of([_share(size, slacks[size])]))


def _series(found: dict[int, dict[int, int]]) -> Iterator[Series]:
    for page, slacks in found.items():
        points = tuple((size, _share(size, slack)) for size, slack in slacks.items())
        yield Series(f"pages of {bytes_label(page)}", points)


def _share(size: int, slack: int) -> float:
    return 100 * slack / (size + slack)


def _most(slacks: dict[int, int]) -> str:
    """The largest size with more slack than data."""
    return bytes_label(max((size for size, slack in slacks.items() if slack > size), default=0))


def _slacks(path: Path, page: int) -> dict[int, int]:
    """What `user.mapfs.file.slack` says of a file of each size, in a store with pages of `page`.

    Raises `CannotMeasureError` if that, or what it would be in other pages, is not as arithmetic
    has it.
    """
    with _filesystem(path, page) as filesystem:
        found = {}
        for size in SIZES:
            file = filesystem.create(ROOT_INODE, b"%d" % size, 0o600, Caller(0, 0)).number
            filesystem.write(file, 0, bytes(size))
            said = json.loads(filesystem.getxattr(file, b"user.mapfs.file.json"))
            expected = {"slack": page} | {
                f"slack.at.{key}": at for key, at in WHAT_IF_SIZES.items()
            }
            wrong = [name for name, other in expected.items() if said[name] != -size % other]
            if wrong:
                raise CannotMeasureError(f"{size} bytes in pages of {page}: {wrong[0]} is wrong")
            found[size] = said["slack"]
        return found


@contextlib.contextmanager
def _filesystem(path: Path, page: int) -> Iterator[Filesystem]:
    create_store(path, StoreOptions(_STORE_BYTES, page))
    try:
        with contextlib.closing(Filesystem(open_store(path))) as filesystem:
            yield filesystem
    finally:
        shutil.rmtree(path)


CLAIM: Final = Claim(
    name="slack",
    side=Side.AGAINST,
    sentence="Mappings are made of whole pages, and small files waste most of theirs.",
    method=(
        f"Files of {SIZES[0]} byte to {bytes_label(SIZES[-1])} in stores of each page size, and the"
        " attributes user.mapfs.file.slack and .slack.at.*. These are exact, so once is enough."
    ),
    rule=(
        f"holds if a file of {bytes_label(_JUDGED)} loses more than half of what it takes in pages"
        " of the store's size; every attribute must be what arithmetic says"
    ),
    factor="",
    subjects=(STORE,),
    measure=_measure,
    axes=Axes("size of the file", "% slack", is_x_bytes=True, is_y_percent=True),
)
