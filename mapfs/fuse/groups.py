"""Whether who makes a call is in a group: FUSE tells its group, but not the supplementary ones."""

import contextlib
import stat
from pathlib import Path
from typing import Final

_ROOT_USER: Final = 0


def is_member(uid: int, gid: int, pid: int, group: int) -> bool:
    """Whether the caller is in `group`, or is root, who counts as in every group.

    The supplementary groups are those that the process has now (proc_pid_status(5)).
    """
    if uid == _ROOT_USER or gid == group:
        return True
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_bytes().splitlines():
            if line.startswith(b"Groups:"):
                return group in map(int, line.split()[1:])
    return False


def keeps_setgid(mode: int, group: int, uid: int, gid: int, pid: int) -> bool:
    """Whether a file of this mode and group stays setgid when the caller changes it.

    It does where the bit is not for executing, and the caller is in the group
    (`setattr_should_drop_sgid` in fs/attr.c).
    """
    is_for_executing = bool(mode & stat.S_IXGRP)
    return bool(mode & stat.S_ISGID) and not is_for_executing and is_member(uid, gid, pid, group)
