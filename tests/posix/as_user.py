"""Doing something as another, real user: a forked process that gives root away for good."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from tests.posix.child import in_child

if TYPE_CHECKING:
    from collections.abc import Callable


class User(NamedTuple):
    """A user as the kernel knows one; no entry in /etc/passwd is needed."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    def become(self) -> None:
        """Make this process the user's, with no way back."""
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)


GROUP = 54330
ALICE = User(54321, 54321)
BOB = User(54322, 54322)
MEMBER = User(54323, 54323, (GROUP,))


def as_user(user: User, action: Callable[[], object]) -> None:
    """Do action as this user; an OSError there is raised here with the same errno."""

    def act() -> None:
        user.become()
        action()

    in_child(act)
