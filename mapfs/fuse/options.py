"""Mount options: what `-o` accepts, and how a mount behaves."""

import contextlib
import enum
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from mapfs.errors import UsageError
from mapfs.filesystem.filesystem import AccessTimes, Listing
from mapfs.fuse.cpu_latency import NO_BOUND
from mapfs.sizes import parse_size

# Flags of mount(2), by the option that sets or clears them.
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_SYNCHRONOUS = 1, 2, 4, 8, 16
MS_DIRSYNC, MS_NOATIME, MS_NODIRATIME, MS_POSIXACL = 128, 1024, 2048, 1 << 16

_SETS: Final = {
    "ro": MS_RDONLY,
    "nosuid": MS_NOSUID,
    "nodev": MS_NODEV,
    "noexec": MS_NOEXEC,
    "sync": MS_SYNCHRONOUS,
    "dirsync": MS_DIRSYNC,
    "noatime": MS_NOATIME,
    "nodiratime": MS_NODIRATIME,
}
_CLEARS: Final = {
    "rw": MS_RDONLY,
    "suid": MS_NOSUID,
    "dev": MS_NODEV,
    "exec": MS_NOEXEC,
    "async": MS_SYNCHRONOUS,
    "atime": MS_NOATIME,
    "diratime": MS_NODIRATIME,
}
# For mount(8) and systemd to read, or what mapfs does anyway.
_IGNORED: Final = frozenset(
    {
        "auto",
        "default_permissions",
        "defaults",
        "noauto",
        "nofail",
        "nouser",
        "owner",
        "relatime",
        "user",
        "users",
        "group",
        "_netdev",
    }
)
_ADDRESS: Final = re.compile(
    r"(?:(?:\[(?P<number>[0-9a-f:.]+)\]|(?P<host>[a-z0-9.-]*)):)?(?P<port>\d{1,5})",
    re.ASCII | re.IGNORECASE,
)
_LEAST_ADDRESS_SPACE: Final = 8 << 20
# No processor takes longer to wake up.
_MOST_CPU_LATENCY: Final = 10_000


class Cache(enum.Enum):
    """What the kernel does with writes: gathers them, or passes each on at once."""

    WRITEBACK = "writeback"
    WRITETHROUGH = "writethrough"


class Transport(enum.Enum):
    """What speaks to the kernel. AUTO is WIRE."""

    AUTO = "auto"
    WIRE = "wire"
    PYFUSE3 = "pyfuse3"


class Address(NamedTuple):
    """Where to listen: a host by name or number, and a TCP port, 0 for any that is free."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How a filesystem is mounted.

    `commit` is seconds, `address_space` bytes, where None is no bound. `cpu_latency` is
    microseconds; None is what suits the machine (`mapfs.fuse.cpu_latency`).
    """

    flags: int = 0
    allow_other: bool = False
    acl: bool = True
    cache: Cache = Cache.WRITEBACK
    commit: float = 5.0
    address_space: int | None = None
    listing: Listing = field(default=Listing.HIDDEN)
    transport: Transport = Transport.AUTO
    metrics: Address | None = None
    cpu_latency: int | None = None

    @property
    def read_only(self) -> bool:
        """Whether nothing may be changed."""
        return bool(self.flags & MS_RDONLY)

    @property
    def access_times(self) -> AccessTimes:
        """Whose access times are updated."""
        if self.flags & MS_NOATIME:
            return AccessTimes.NONE
        return AccessTimes.FILES if self.flags & MS_NODIRATIME else AccessTimes.ALL

    def with_text(self, text: str) -> "MountOptions":
        """These options with a comma list applied in order, as mount(8) does.

        Raises `UsageError` naming the option that is unknown or has a bad value.
        """
        options = self
        for option in filter(None, text.split(",")):
            options = options.with_option(option)
        return options

    def with_option(self, option: str) -> "MountOptions":
        """These options with one more, `name` or `name=value`. Raises `UsageError`."""
        name, _, value = option.partition("=")
        if option in _SETS:
            return replace(self, flags=self.flags | _SETS[option])
        if option in _CLEARS:
            return replace(self, flags=self.flags & ~_CLEARS[option])
        if option in _IGNORED or name.startswith("x-") or name == "comment":
            return self
        if (change := _OURS.get(name + "=" if "=" in option else name)) is None:
            raise UsageError(f"unknown mount option: {option}")
        try:
            return change(self, value)
        except ValueError as error:
            raise UsageError(f"mount option {option}: {error}") from error


def _seconds(value: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(value)) <= 3600:
            return seconds
    raise ValueError("must be a number of seconds above 0, and at most 3600")


def _cpu_latency(value: str) -> int:
    if value == "off":
        return NO_BOUND
    with contextlib.suppress(ValueError):
        if 0 <= (number := int(value)) <= _MOST_CPU_LATENCY:
            return number
    raise ValueError(f"must be off, or a number of microseconds from 0 to {_MOST_CPU_LATENCY}")


def _address(value: str) -> Address:
    found = _ADDRESS.fullmatch(value)
    if found is None or int(found["port"]) >= 1 << 16:
        raise ValueError("not an address like 9100, 127.0.0.1:9100 or [::1]:9100")
    return Address(found["number"] or found["host"] or "127.0.0.1", int(found["port"]))


def _address_space(value: str) -> int:
    size = parse_size(value)
    if size < _LEAST_ADDRESS_SPACE:
        raise ValueError(f"must be at least {_LEAST_ADDRESS_SPACE >> 20}M")
    return size


_OURS: Final[dict[str, Callable[[MountOptions, str], MountOptions]]] = {
    "allow_other": lambda options, _: replace(options, allow_other=True),
    "acl": lambda options, _: replace(options, acl=True),
    "noacl": lambda options, _: replace(options, acl=False),
    "cache=": lambda options, value: replace(options, cache=Cache(value)),
    "metrics=": lambda options, value: replace(options, metrics=_address(value)),
    "commit=": lambda options, value: replace(options, commit=_seconds(value)),
    "cpu_latency=": lambda options, value: replace(options, cpu_latency=_cpu_latency(value)),
    "address_space=": lambda options, value: replace(options, address_space=_address_space(value)),
    "transport=": lambda options, value: replace(options, transport=Transport(value)),
    "xattrs=": lambda options, value: replace(options, listing=Listing(value)),
}
