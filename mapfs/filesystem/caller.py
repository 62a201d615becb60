"""Who is asking."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """The process behind a call. `umask` is 0 where the kernel has applied it already."""

    uid: int
    gid: int
    umask: int = 0
