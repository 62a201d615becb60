"""Watching a live mount: metrics and traces."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mapfs.cli.client import ControlClient
from tests.mount.volume import (
    MAPFS,
    Volume,
    both_transports,
    mapfs,
    process,
    refusal,
    wait_until,
)

pytestmark = pytest.mark.mount


def samples(text: str) -> dict[str, float]:
    """Samples by name, or by name and operation."""
    return {
        " ".join([sample.name, *filter(None, [sample.labels.get("operation")])]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_bucket")
    }


def scrape(url: str) -> dict[str, float]:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return samples(answer.read().decode())


def metrics_url(volume: Volume) -> str:
    """Where the log says that metrics are."""
    return str(re.findall(r"metrics are at (http://\S+)", volume.log.read_text())[-1])


@both_transports
def test_metrics_over_http_and_from_the_command(volume: Volume) -> None:
    mnt = volume.mount("--metrics", "0", "--commit", "3600")
    (mnt / "file").write_bytes(b"x" * 5000)
    (mnt / "d").mkdir()
    url = metrics_url(volume)
    assert url.startswith("http://127.0.0.1:")
    scraped, printed = scrape(url), samples(mapfs("metrics", mnt).stdout)
    for found in (scraped, printed):
        assert found["mapfs_requests_total mkdir"] == 1
        assert found["mapfs_request_duration_seconds_count mkdir"] == 1
        assert found["mapfs_written_bytes_total"] == 5000
        assert found["mapfs_slack_bytes"] == 3192
    with pytest.raises(urllib.error.HTTPError, match="404"):
        scrape(url + "/other")
    port = int(url.split("/")[2].partition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(b"GET /")
        (mnt / "other").write_text("meanwhile")
        volume.umount()


def test_metrics_go_on_after_a_takeover(volume: Volume) -> None:
    # A loopback address that no other test, and no program, has: so the port is free.
    address = f"127.{os.getpid() >> 16 & 63 | 64}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}:9100"
    volume.mount("-o", f"metrics={address}")
    url = f"http://{address}/metrics"
    assert scrape(url)["mapfs_takeovers_total"] == 0
    died = volume.daemon
    os.kill(died, signal.SIGKILL)
    wait_until(lambda: volume.lock_holders - {died}, "another worker")
    assert ControlClient(volume.mnt).snapshot().takeovers == 1
    assert scrape(url)["mapfs_takeovers_total"] == 1


@both_transports
def test_an_address_that_cannot_be_leaves_nothing_mounted(volume: Volume) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        address = f"127.0.0.1:{used.getsockname()[1]}"
        command = ("mount", volume.store, volume.mnt, "--transport", volume.transport)
        message = refusal(mapfs(*command, "--metrics", address, status=1))
        assert message == f"mapfs: metrics cannot be served on {address}: Address already in use"
    assert "not an address" in refusal(mapfs(*command, "--metrics", "nonsense", status=2))
    assert not volume.mounted
    volume.wait_for_end()


# Traces


def write_and_read(volume: Volume, path: Path) -> None:
    """Have the daemon answer one WRITE and one READ of a file."""
    with path.open("wb", buffering=0) as file:
        file.write(b"content")
        os.fsync(file.fileno())
    ControlClient(volume.mnt).ask("invalidate", inode=path.stat().st_ino)
    assert path.read_bytes() == b"content"


@contextlib.contextmanager
def repeated(action: Callable[[], object]) -> Iterator[None]:
    """Do something again and again: nobody knows when a trace has begun."""
    enough = threading.Event()

    def repeat() -> None:
        while not enough.wait(0.05):
            action()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


@both_transports
def test_a_trace_shows_what_is_wanted_with_its_path(volume: Volume) -> None:
    mnt = volume.mount()
    (mnt / "d").mkdir()

    def use_both() -> None:
        write_and_read(volume, mnt / "other")
        write_and_read(volume, mnt / "d" / "file")

    use_both()
    wanted = ("--op", "read,write", "--path", "d/*", "--json", "--limit", "2")
    with process([MAPFS, "trace", mnt, *wanted]) as tracer, repeated(use_both):
        output, _ = tracer.communicate(timeout=60)
    assert tracer.returncode == 0
    events = [json.loads(line) for line in output.splitlines()]
    assert sorted(each["operation"] for each in events) == ["read", "write"]
    for each in events:
        assert each["path"] == "d/file"
        assert each["inode"] == (mnt / "d" / "file").stat().st_ino
        assert each["offset"] == 0
        assert each["size"] >= 7
        assert each["error"] is None
        assert each["duration_seconds"] > 0


def test_a_trace_goes_on_after_a_takeover_and_ends_with_the_mount(volume: Volume) -> None:
    mnt = volume.mount()
    with process([MAPFS, "trace", mnt, "--op", "mkdir"], stderr=subprocess.PIPE) as tracer:
        assert tracer.stdout is not None
        assert tracer.stderr is not None
        names = map(str, count())
        with repeated(lambda: os.mkdir(mnt / next(names))):
            assert re.fullmatch(r"[\d:.]{15} mkdir +\d+ ok \S+ .?s\n", tracer.stdout.readline())
            os.kill(volume.daemon, signal.SIGKILL)
            assert "another process serves it now" in tracer.stderr.readline()
            tracer.stdout.readline()
        volume.umount()
        assert "the mount is gone" in tracer.stderr.readline()
        assert tracer.wait(60) == 0


@both_transports
def test_what_cannot_be_traced_is_refused_in_one_line(volume: Volume) -> None:
    assert "no mapfs is mounted" in refusal(mapfs("trace", volume.mnt, status=1))
    volume.mount()
    for names, wrong in (("reed", "reed"), ("read,init", "init"), ("", ""), ("read,", "")):
        message = refusal(mapfs("trace", volume.mnt, "--op", names, status=2))
        assert f"no such operation: {wrong!r} (there are " in message
        assert ", read, " in message
