"""The marks a check may carry: what it needs, and that it takes long."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    CheckFunction = Callable[[Path], None]

F = TypeVar("F", bound="CheckFunction")


def needs(*names: str) -> Callable[[F], F]:
    """The check needs these capabilities of the filesystem or of its surroundings."""

    def mark(function: F) -> F:
        function.__dict__["needs"] = frozenset(names) | needs_of(function)
        return function

    return mark


def slow(function: F) -> F:
    """The check takes seconds."""
    function.__dict__["slow"] = True
    return function


def is_slow(function: CheckFunction) -> bool:
    """Whether the check was said to take seconds."""
    return "slow" in function.__dict__


def needs_of(function: CheckFunction) -> frozenset[str]:
    """What the check was said to need."""
    needed: frozenset[str] = function.__dict__.get("needs", frozenset())
    return needed
