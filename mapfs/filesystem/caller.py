"""Who is asking."""

from typing import NamedTuple


class Caller(NamedTuple):
    """The process behind a call. `umask` is 0 where the kernel has applied it already."""

    uid: int
    gid: int
    umask: int = 0
