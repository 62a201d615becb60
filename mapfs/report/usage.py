"""`Usage`: what a file, or all files of a tree, take and waste. A vector that can be added."""

from collections.abc import Mapping
from operator import add
from typing import Any, Final, NamedTuple

from mapfs.format.totals import WHAT_IF_SIZES
from mapfs.store.machine_pages import PAGE_BYTES

SIZE_LABELS: Final = {size: label for label, size in WHAT_IF_SIZES.items()}
# What mkfs would choose here, of the sizes that what-if slack is kept for.
DEFAULT_PAGE: Final = PAGE_BYTES if PAGE_BYTES in SIZE_LABELS else min(SIZE_LABELS)


class Usage(NamedTuple):
    """Counts of files and extents, and bytes.

    `files` counts whatever is no directory; all else is about regular files. `stored` is the size
    less the holes. `at_…` is the slack if pages were of that size. `extents` and `resident` leave
    out the files of which they are not known; `no_extents` and `no_resident` count these.
    """

    files: int = 0
    size: int = 0
    stored: int = 0
    allocated: int = 0
    slack: int = 0
    at_4k: int = 0
    at_16k: int = 0
    at_64k: int = 0
    at_2m: int = 0
    extents: int = 0
    resident: int = 0
    no_extents: int = 0
    no_resident: int = 0

    def plus(self, other: "Usage") -> "Usage":
        """The sum."""
        return Usage(*map(add, self, other))

    def at(self, page_size: int) -> int:
        """The slack if pages had `page_size` bytes, which is one of `WHAT_IF_SIZES`."""
        slack: int = getattr(self, f"at_{SIZE_LABELS[page_size]}")
        return slack

    @property
    def slack_share(self) -> float:
        """The part of the allocated bytes that is slack, from 0 to 1."""
        return self.slack / self.allocated if self.allocated else 0.0


# A symbolic link, a device, a FIFO or a socket.
NO_FILE: Final = Usage(files=1)


def usage_of_file(values: Mapping[str, Any]) -> Usage:
    """One file, from its attribute `user.mapfs.file.json`."""
    return Usage(
        files=1,
        size=values["bytes"],
        stored=values["allocated"] - values["slack"],
        allocated=values["allocated"],
        slack=values["slack"],
        **_what_ifs(values, "slack.at."),
        extents=values["extents"],
        resident=values["resident"],
    )


def usage_of_tree(values: Mapping[str, Any]) -> Usage:
    """All files below a directory, from its attribute `user.mapfs.dir.json`: no extents."""
    return Usage(
        files=values["rfiles"],
        size=values["rbytes"],
        stored=values["rallocated"] - values["rslack"],
        allocated=values["rallocated"],
        slack=values["rslack"],
        **_what_ifs(values, "rslack.at."),
        no_extents=values["rfiles"],
        no_resident=values["rfiles"],
    )


def _what_ifs(values: Mapping[str, Any], prefix: str) -> dict[str, int]:
    return {f"at_{label}": values[prefix + label] for label in WHAT_IF_SIZES}
