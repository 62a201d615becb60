"""The columns of a report: their titles, what they say of a usage, and how that is written."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from mapfs.errors import UsageError
from mapfs.format.totals import WHAT_IF_SIZES
from mapfs.report.usage import DEFAULT_PAGE, Usage
from mapfs.sizes import format_size

Value = int | float | None
NAME: Final = "name"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of numbers; `of` is None where the number is not known.

    `is_size`: bytes, which people read with a suffix. `needs_walk`: directories keep no total.
    """

    key: str
    title: str
    of: Callable[[Usage], Value]
    is_size: bool = True
    needs_walk: bool = False


def _extents(usage: Usage) -> Value:
    return None if usage.no_extents and not usage.extents else usage.extents


def _resident(usage: Usage) -> Value:
    return None if usage.no_resident and not usage.resident else usage.resident


def _share(usage: Usage) -> Value:
    return 100 * usage.slack_share


def _at(page_size: int, usage: Usage) -> Value:
    return usage.at(page_size)


_ALL: Final = (
    Column("size", "Size", lambda usage: usage.size),
    Column("stored", "Stored", lambda usage: usage.stored),
    Column("allocated", "Allocated", lambda usage: usage.allocated),
    Column("slack", "Slack", lambda usage: usage.slack),
    Column("slack%", "Slack %", _share, is_size=False),
    Column("mapfs", "In mapfs", partial(_at, DEFAULT_PAGE)),
    *(
        Column(f"at.{label}", f"At {label.upper()}", partial(_at, size))
        for label, size in WHAT_IF_SIZES.items()
    ),
    Column("files", "Files", lambda usage: usage.files, is_size=False),
    Column("extents", "Extents", _extents, is_size=False, needs_walk=True),
    Column("resident", "Resident", _resident, needs_walk=True),
)
COLUMNS: Final = {column.key: column for column in _ALL}
_OF_MAPFS: Final = "size,allocated,slack,slack%,extents,resident,name"
_OF_OTHERS: Final = "size,allocated,slack,slack%,mapfs,extents,resident,name"


def default_columns(kind: str) -> str:
    """What is shown of a "mount", "store" or "directory" unless columns are chosen."""
    return _OF_OTHERS if kind == "directory" else _OF_MAPFS


def chosen(text: str) -> list[str]:
    """The keys in `size,slack,name`. Raises `UsageError` for one that there is not."""
    keys = [key.strip().lower() for key in text.split(",") if key.strip()]
    for key in keys:
        require_column(key)
    if not keys:
        raise UsageError("no columns were named")
    return keys


def require_column(key: str) -> str:
    """The key. Raises `UsageError` if there is no such column."""
    if key != NAME and key not in COLUMNS:
        raise UsageError(f"{key}: no such column (there are {', '.join([*COLUMNS, NAME])})")
    return key


def need_walk(keys: Iterable[str]) -> bool:
    """Whether a column is among them for which every file must be looked at."""
    return any(key != NAME and COLUMNS[key].needs_walk for key in keys)


def sort_value(key: str, usage: Usage) -> float:
    """What rows are ordered by, ascending: the largest value first, what is unknown last."""
    value = COLUMNS[key].of(usage)
    return 1 if value is None else -value


def written(column: Column, usage: Usage, *, human: bool) -> str:
    """A value as text: `-` if unknown, and sizes with a suffix if `human`."""
    value = column.of(usage)
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1f}" if human else f"{value:.2f}"
    return format_size(value) if human and column.is_size else str(value)
