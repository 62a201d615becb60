"""Every error has an errno that the kernel can be told, and an exit code."""

import errno

import pytest

from mapfs import errors
from mapfs.errors import MapfsError, UsageError


def below(kind: type[MapfsError]) -> list[type[MapfsError]]:
    return [kind, *(each for sub in kind.__subclasses__() for each in below(sub))]


@pytest.mark.parametrize("kind", below(MapfsError), ids=lambda kind: kind.__name__)
def test_errno_and_exit_code(kind: type[MapfsError]) -> None:
    assert kind.errno in errno.errorcode
    assert kind.exit_code == (2 if issubclass(kind, UsageError) else 1)
    assert kind.__doc__
    assert kind.__module__ == errors.__name__


def test_no_error_says_enosys() -> None:
    assert errno.ENOSYS not in {kind.errno for kind in below(MapfsError)}
