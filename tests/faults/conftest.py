"""Fixtures of the fault tests: good bundles, made once and copied."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.bundles import copy, make_bundle


@pytest.fixture(scope="session")
def good_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("good") / "good.mapfs")


@pytest.fixture(scope="session")
def logged_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good bundle whose log is to be replayed."""
    return make_bundle(tmp_path_factory.mktemp("logged") / "logged.mapfs", logged=True)


@pytest.fixture
def bundle(good_bundle: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return copy(good_bundle, tmp_path / "bad.mapfs")


@pytest.fixture
def logged(logged_bundle: Path, tmp_path: Path) -> Path:
    """A copy to damage, with a log."""
    return copy(logged_bundle, tmp_path / "bad.mapfs")


CopyOf = Callable[[Path], Path]
