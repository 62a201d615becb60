"""`handler`, which every handler of pyfuse3 is wrapped in: errors, a second try, counting.

Any exception but `FUSEError` would end the daemon, so all are mapped.
"""

import errno
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar, cast

from pyfuse3 import FUSEError

from mapfs.errors import FULL, MapfsError, NoSpaceError
from mapfs.fuse.commits import Committer

_log = logging.getLogger(__name__)

_handlers: Final[set[Callable[..., Any]]] = set()

_Handler = TypeVar("_Handler", bound=Callable[..., Awaitable[Any]])


class Answering(Protocol):
    """What a handler's transport does when it answers."""

    committer: Committer

    async def before_answer(self, handler: str) -> None:
        """Wait for what must be durable before `handler` is answered."""

    def answered(
        self, operation: str, arguments: tuple[Any, ...], code: int, nanoseconds: int
    ) -> None:
        """Count a call that ended with errno `code`, or 0."""


def handler(function: _Handler) -> _Handler:
    """Map every error, retry once when space can be won, and count how it went."""
    mapped = _mapped(function)

    @functools.wraps(function)
    async def call(self: Answering, *arguments: Any) -> Any:  # noqa: ANN401 (any handler)
        begun = time.perf_counter_ns()
        code = 0
        try:
            return await mapped(self, *arguments)
        except FUSEError as error:
            code = error.errno
            raise
        finally:
            nanoseconds = time.perf_counter_ns() - begun
            self.answered(function.__name__, arguments, code, nanoseconds)

    _handlers.add(call)
    return cast("_Handler", call)


def handled_by(transport: type) -> frozenset[str]:
    """The names of the methods of a class that are such handlers."""
    members = vars(transport).items()
    return frozenset(name for name, value in members if callable(value) and value in _handlers)


def _mapped(function: _Handler) -> _Handler:
    """Map every error to the errno that the kernel gets; retry once when space can be won."""

    @functools.wraps(function)
    async def call(self: Answering, *arguments: Any) -> Any:  # noqa: ANN401 (any handler)
        try:
            answer = await _with_reclaim(function, self, arguments)
            await self.before_answer(function.__name__)
        except MapfsError as error:
            raise FUSEError(error.errno) from None
        except FUSEError:
            raise
        except OSError as error:
            if error.errno not in FULL:
                _log.error("%s: %s", function.__name__, error)
            raise FUSEError(error.errno or errno.EIO) from None
        except Exception as error:
            _log.exception("%s failed", function.__name__)
            raise FUSEError(errno.EIO) from error
        return answer

    return cast("_Handler", call)


async def _with_reclaim(
    function: Callable[..., Awaitable[Any]],
    transport: Answering,
    arguments: tuple[Any, ...],
) -> Any:  # noqa: ANN401 (any handler)
    """Call a handler; if the store or the host is full, again when a commit has freed space."""
    try:
        return await function(transport, *arguments)
    except (NoSpaceError, OSError) as error:
        if error.errno not in FULL or not await transport.committer.reclaim():
            raise
    return await function(transport, *arguments)
