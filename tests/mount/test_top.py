"""`mapfs top`: its screen, driven by textual's Pilot, and what it prints once."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Sparkline, Static

from mapfs.cli.client import ControlClient
from mapfs.fuse.statistics import Process
from mapfs.monitor.screen import Top
from tests.mount.volume import MAPFS, Volume, mapfs, process, refusal

pytestmark = pytest.mark.mount

_PATIENCE_SECONDS = 60


def rows(app: Top, selector: str) -> list[list[str]]:
    table = app.query_one(selector, DataTable)
    return [[str(cell) for cell in table.get_row(key)] for key in table.rows]


def text(app: Top, selector: str) -> str:
    return str(app.query_one(selector, Static).render())


async def until(pilot: Pilot[str], condition: Callable[[], object]) -> None:
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while not condition():
            await pilot.pause(0.02)


def fill(mnt: Path) -> None:
    """Two files: one is larger, the other is used more."""
    (mnt / "larger [red]").write_bytes(b"x" * 300_001)
    for _ in range(5):
        with (mnt / "busier").open("wb", buffering=0) as file:
            file.write(b"y" * 5000)
            os.fsync(file.fileno())


async def watch(volume: Volume) -> str | None:
    """Go through everything that the screen can do; returns why it ended."""
    client = ControlClient(volume.mnt)
    app = Top("the mount", lambda: client.snapshot(50), 0.1)
    async with app.run_test(size=(140, 40)) as pilot:
        await until(pilot, lambda: rows(app, "#files"))
        assert [row[0] for row in rows(app, "#files")] == ["busier", "larger [red]"]
        await pilot.press("s")
        assert [row[0] for row in rows(app, "#files")] == ["larger [red]", "busier"]
        assert "files by size" in text(app, "#title")
        for key, order in (("k", "slack"), ("m", "resident"), ("d", "dirty"), ("a", "accesses")):
            await pilot.press(key)
            assert f"files by {order}" in text(app, "#title")
        for key, order in (("e", "errors"), ("l", "latency"), ("r", "rate")):
            await pilot.press(key)
            assert f"operations by {order}" in text(app, "#title")
        await see_a_directory_made(app, pilot, volume.mnt)
        assert "slack" in text(app, "#summary")
        assert len(app.query_one("#trend", Sparkline).data or []) > 1
        await pilot.press("p")
        assert "paused" in text(app, "#title")
        shown = text(app, "#summary")
        (volume.mnt / "while paused").write_bytes(b"x" * 999_999)
        await pilot.pause(0.5)
        assert text(app, "#summary") == shown
        await pilot.press("p")
        await until(pilot, lambda: text(app, "#summary") != shown)
        await asyncio.to_thread(volume.umount)
        await until(pilot, lambda: app.return_value is not None)
    return app.return_value


async def see_a_directory_made(app: Top, pilot: Pilot[str], mnt: Path) -> None:
    """The interval in which it was made may be over in a moment, so make more."""
    made = 0

    def is_seen() -> bool:
        nonlocal made
        made += 1
        (mnt / f"directory {made}").mkdir()
        return "mkdir" in [row[0] for row in rows(app, "#operations")]

    await until(pilot, is_seen)


def test_the_screen(volume: Volume) -> None:
    fill(volume.mount())
    reason = asyncio.run(watch(volume))
    assert reason is not None
    assert "the mount is gone" in reason


async def end_with(key: str, volume: Volume) -> Top:
    app = Top("the mount", ControlClient(volume.mnt).snapshot, 0.1)
    async with app.run_test() as pilot:
        await pilot.press(key)
    return app


def test_q_and_ctrl_c_end_it(volume: Volume) -> None:
    volume.mount()
    for key, code in (("q", 0), ("ctrl+c", 130)):
        app = asyncio.run(end_with(key, volume))
        assert app.return_value is None
        assert app.return_code == code


def shape(value: Any) -> Any:
    """What kinds of values there are under which names."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    if isinstance(value, bool | str) or value is None:
        return type(value).__name__
    return "number"


RATE = dict.fromkeys(
    ("per_second", "errors_per_second", "p50_seconds", "p90_seconds", "p99_seconds"), "number"
)
NO_RATE = {
    key: "NoneType" if key.startswith("p") and key != "per_second" else "number" for key in RATE
}
ONCE = {
    "seconds": "number",
    "operations": {"mkdir": RATE},
    "commits": NO_RATE,
    "resident_bytes_per_second": "number",
    "cold_bytes_per_second": "number",
    "written_bytes_per_second": "number",
    "minor_faults_per_second": "number",
    "major_faults_per_second": "number",
    "inode_cache_hit_share": "number",
    "slack_bytes_per_second": "number",
    "takeovers": "number",
    "process": dict.fromkeys([field.name for field in fields(Process)], "number"),
    "files": [
        {
            "inode": "number",
            "path": "str",
            "accesses": "number",
            "bytes": "number",
            "allocated_bytes": "number",
            "slack_bytes": "number",
            "resident_bytes": "number",
            "dirty_bytes": "number",
        }
    ],
}


def test_once_as_json(volume: Volume) -> None:
    mnt = volume.mount("--commit", "3600")
    fill(mnt)
    words = ("--once", "--json", "--interval", "0.5")
    with process([MAPFS, "top", mnt, *words]) as top:
        number = 0
        while top.poll() is None:
            number += 1
            (mnt / str(number)).mkdir()
            time.sleep(0.01)  # 10,000 changes would be committed
        assert top.stdout is not None
        found = json.loads(top.stdout.read())
    assert top.returncode == 0
    assert found["operations"]["mkdir"]["per_second"] > 0
    assert found["seconds"] >= 0.5
    assert found["process"]["pid"] == volume.daemon
    now = json.loads(os.getxattr(mnt, "user.mapfs.fs.json"))
    # A commit may have come in between all the same, and the heap have grown.
    other = {"catalog_bytes": 0, "page_table_bytes": 0}
    assert found.pop("filesystem") | other == now | other
    assert {each["path"] for each in found["files"]} == {"larger [red]", "busier"}
    found["operations"] = {"mkdir": found["operations"]["mkdir"]}
    if found["files"][0]["dirty_bytes"] is None:  # before Linux 6.5
        found["files"][0]["dirty_bytes"] = 0
    assert shape(found) == ONCE


def test_once_as_a_table_and_what_is_refused(volume: Volume, tmp_path: Path) -> None:
    fill(volume.mount())
    shown = mapfs("top", volume.mnt, "--once", "--interval", "0.1").stdout
    assert "larger [red]" in shown
    assert "page faults" in shown
    assert "\x1b" not in shown
    assert "needs a terminal" in refusal(mapfs("top", volume.mnt, status=2))
    assert "--once" in refusal(mapfs("top", volume.mnt, "--json", status=2))
    (tmp_path / "textual.py").write_text("raise ModuleNotFoundError(name='textual')")
    done = subprocess.run(
        [sys.executable, "-m", "mapfs", "top", volume.mnt],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert "pip install 'mapfs[top]'" in refusal(done)
