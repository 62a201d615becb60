"""The table of POSIX checks, on tmpfs and on mapfs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.posix.needs import is_slow
from tests.posix.table import Check, Outcome, all_checks, run

if TYPE_CHECKING:
    from tests.posix.conftest import Subject

SLOW = (pytest.mark.slow, pytest.mark.timeout(600))
ROWS = [
    pytest.param(row, id=row.id, marks=SLOW if is_slow(row.function) else ())
    for row in all_checks()
]


@pytest.mark.parametrize("check", ROWS)
def test_posix(check: Check, subject: Subject) -> None:
    if is_slow(check.function) and not subject.slow:
        pytest.skip("takes long, and says nothing of the transport")
    if run(check, subject.directory, subject.lacks) is Outcome.SKIPPED:
        pytest.skip(f"needs {', '.join(sorted(check.needs))}")


def test_the_table_has_no_two_rows_of_one_name() -> None:
    names = [row.id for row in all_checks()]
    assert len(names) == len(set(names))
