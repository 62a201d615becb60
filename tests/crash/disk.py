"""What a disk may hold of a file when the power fails.

Everything up to the last sync is there. Of what came later each sector may be as any of the calls
left it: calls reach the disk in any order, wholly, partly or not at all.
"""

import enum
from collections.abc import Callable
from random import Random

from mapfs.format.extent import split_at
from tests.crash.journal import Kind, Record

SECTOR = 512
PAGE = 4096


class Loss(enum.Enum):
    """Which of the calls since the last sync are lost."""

    ALL = "all"
    NONE = "none"
    ONE = "one"
    ALL_BUT_ONE = "all but one"
    SOME = "some"
    SOME_PAGES = "some pages of each"
    SOME_SECTORS = "some sectors of each"


class RecordedFile:
    """A file as its journal tells it."""

    def __init__(self) -> None:
        self._synced = bytearray()
        self._pending: list[Record] = []

    def replay(self, record: Record) -> None:
        if record.kind == Kind.SYNC:
            for each in self._pending:
                _apply(self._synced, each, lambda: True, 0)
            self._pending.clear()
        else:
            self._pending.append(record)

    def after_power_cut(self, loss: Loss, random: Random) -> bytearray:
        image = bytearray(self._synced)
        one = random.randrange(len(self._pending)) if self._pending else 0
        for number, record in enumerate(self._pending):
            unit, survives = _survival(loss, random, is_the_one=number == one)
            _apply(image, record, survives, unit)
        return image


def _survival(loss: Loss, random: Random, *, is_the_one: bool) -> tuple[int, Callable[[], bool]]:
    """The unit in which a call reaches the disk (0: the whole call), and whether a unit does."""
    match loss:
        case Loss.ALL | Loss.NONE:
            return 0, lambda: loss is Loss.NONE
        case Loss.ONE | Loss.ALL_BUT_ONE:
            return 0, lambda: is_the_one is (loss is Loss.ALL_BUT_ONE)
        case Loss.SOME:
            return 0, lambda: random.random() < 0.5
        case Loss.SOME_PAGES:
            return PAGE, lambda: random.random() < 0.5
        case Loss.SOME_SECTORS:
            return SECTOR, lambda: random.random() < 0.5


def _apply(image: bytearray, record: Record, survives: Callable[[], bool], unit: int) -> None:
    if record.kind == Kind.RESIZE:
        if survives():
            del image[record.offset :]
            image.extend(bytes(record.offset - len(image)))
        return
    for offset, length in _units(record, unit):
        if survives():
            within = offset - record.offset
            data = record.data[within : within + length] or bytes(length)
            image.extend(bytes(max(0, offset - len(image))))
            image[offset : offset + length] = data


def _units(record: Record, unit: int) -> list[tuple[int, int]]:
    if unit:
        return list(split_at(record.offset, record.length, unit))
    return [(record.offset, record.length)]
