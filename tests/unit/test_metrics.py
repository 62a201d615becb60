"""Metrics as text, and over HTTP."""

import json
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from mapfs.errors import MountError
from mapfs.filesystem.inode import CacheUse
from mapfs.fuse import scraping
from mapfs.fuse.counters import Timings
from mapfs.fuse.metrics import exposition
from mapfs.fuse.options import Address
from mapfs.fuse.scraping import MetricsServer, listen
from mapfs.fuse.statistics import Bytes, Process, Snapshot

_PATIENCE_SECONDS = 60
SNAPSHOT = Snapshot(
    version="1.2.3",
    transport="wire",
    store="/a/b.mapfs",
    time=1000.0,
    uptime_seconds=100.0,
    takeovers=2,
    operations={
        "read": Timings(6, 1, 2_000_000, (0,) * 9 + (1, 2) + (0,) * 9 + (3,)),
        "write": Timings(1, 0, 2**40, (0,) * 41 + (1,)),
    },
    commits=Timings(1, 1, 500_000_000, (0,) * 29 + (1,)),
    log_syncs=7,
    bytes=Bytes(read=100, cold=30, written=50),
    inode_cache=CacheUse(hits=10, misses=3, inodes=2),
    process=Process(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0.5),
    filesystem={
        "stored_bytes": 1,
        "allocated_bytes": 2,
        "slack_bytes": 3,
        "slack_tail_bytes": 4,
        "slack_prealloc_bytes": 5,
        "metadata_bytes": 6,
        "free_bytes": 7,
        "store_bytes": 8,
        "limit_bytes": 9,
        "catalog_bytes": 10,
        "page_size": 4096,
        "state": "degraded",
    },
    files=(),
)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    """Every sample by its name and labels; the parser refuses what is no exposition."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def found() -> Samples:
    return samples(exposition(SNAPSHOT, "/mnt").decode())


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def test_values(found):
    assert found[key("mapfs_requests_total", operation="read")] == 6
    assert found[key("mapfs_request_errors_total", operation="read")] == 1
    assert found[key("mapfs_read_bytes_total", pages="resident")] == 70
    assert found[key("mapfs_read_bytes_total", pages="cold")] == 30
    assert found[key("mapfs_written_bytes_total")] == 50
    assert found[key("mapfs_slack_bytes")] == 3
    assert found[key("mapfs_page_size_bytes")] == 4096
    assert found[key("mapfs_state", state="degraded")] == 1
    assert found[key("mapfs_state", state="ok")] == 0
    assert found[key("mapfs_takeovers_total")] == 2
    assert found[key("mapfs_start_time_seconds")] == 900
    assert found[key("mapfs_page_faults_total", kind="major")] == 5
    assert found[key("mapfs_commit_failures_total")] == 1


def test_histograms(found):
    name = "mapfs_request_duration_seconds"
    assert found[key(f"{name}_count", operation="read")] == 6
    assert found[key(f"{name}_sum", operation="read")] == 0.002
    below = {
        float(dict(labels)["le"]): value
        for (each, labels), value in found.items()
        if each == f"{name}_bucket" and ("operation", "read") in labels
    }
    bounds = sorted(below)
    assert bounds[0] == 1.024e-6
    assert bounds[-1] == float("inf")
    assert [below[bound] for bound in bounds] == sorted(below.values())
    assert below[1.024e-6] == 3
    assert below[0.000524288] == 3
    assert below[0.001048576] == 6
    assert below[bounds[-1]] == 6
    assert found[key(f"{name}_bucket", operation="write", le="+Inf")] == 1
    assert found[key(f"{name}_bucket", operation="write", le="17.179869184")] == 0
    assert found[key("mapfs_commit_duration_seconds_count")] == 1


def test_every_family_says_what_it_is():
    families = list(text_string_to_metric_families(exposition(SNAPSHOT, "/mnt").decode()))
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert family.documentation.endswith(".")
        assert family.type in ("counter", "gauge", "histogram")
        assert family.name.startswith("mapfs_")


def test_every_metric_is_in_the_manual():
    page = Path(__file__).parents[2] / "docs/man/mapfs-metrics.1.md"
    families = text_string_to_metric_families(exposition(SNAPSHOT, "/mnt").decode())
    names = {f"{each.name}{'_total' * (each.type == 'counter')}" for each in families}
    documented = {
        word
        for line in page.read_text().splitlines()
        if line.startswith("| `mapfs_")
        for word in line.split("|")[1].replace("`", "").replace(",", "").split()
    }
    assert documented == names


@pytest.mark.parametrize("path", ['with "quotes"', "back\\slash", "new\nline", "é", "a,b={c}"])
def test_labels_are_escaped(path):
    found = samples(exposition(replace(SNAPSHOT, store=path), "/m").decode())
    (labels,) = (dict(labels) for name, labels in found if name == "mapfs_info")
    assert labels["store"] == path
    assert labels["mountpoint"] == "/m"


def test_a_path_that_is_no_text():
    found = samples(exposition(replace(SNAPSHOT, store=None), "/\udcff").decode())
    (labels,) = (dict(labels) for name, labels in found if name == "mapfs_info")
    assert (labels["store"], labels["mountpoint"]) == ("", "/\ufffd")


def test_a_snapshot_survives_json():
    assert Snapshot.from_json(json.loads(json.dumps(SNAPSHOT.as_json()))) == SNAPSHOT


# HTTP

Connect = Callable[[], Awaitable[trio.SocketStream]]


def play(scenario: Callable[[Connect], Awaitable[None]], host: str = "127.0.0.1") -> None:
    listener = listen(Address(host, 0))
    host, port, *_ = listener.getsockname()

    async def connect() -> trio.SocketStream:
        return await trio.open_tcp_stream(host, port)

    async def main() -> None:
        server = MetricsServer(lambda: SNAPSHOT, Path("/mnt"))
        with trio.fail_after(_PATIENCE_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.run, listener)
                await scenario(connect)
                nursery.cancel_scope.cancel()

    trio.run(main)


async def ask(stream: trio.SocketStream, request: bytes) -> bytes:
    """Everything that comes after a request."""
    async with stream:
        await stream.send_all(request)
        return b"".join([part async for part in stream])


def test_a_scrape():
    async def scenario(connect: Connect) -> None:
        request = b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n"
        head, _, body = (await ask(await connect(), request)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=")
        assert f"Content-Length: {len(body)}".encode() in head
        assert body == exposition(SNAPSHOT, "/mnt")
        head_only = await ask(await connect(), request.replace(b"GET", b"HEAD"))
        assert head_only == head + b"\r\n\r\n"

    play(scenario)


def test_a_scrape_by_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")

    async def scenario(connect: Connect) -> None:
        assert b"200 OK" in await ask(await connect(), b"GET /metrics HTTP/1.0\r\n\r\n")

    play(scenario, "::1")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"GET /metrics/../etc HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"GET /metrics?name[]=x HTTP/1.1\r\n\r\n", b"200 OK"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405 Method Not Allowed"),
        (b"nonsense\r\n\r\n", b"400 Bad Request"),
        (b"\r\n\r\n", b"400 Bad Request"),
        (b"\xff\xfe \x00\r\n\r\n", b"400 Bad Request"),
        (b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 2000, b"431 Request Header"),
    ],
)
def test_other_requests(request_, status):
    async def scenario(connect: Connect) -> None:
        stream = await connect()
        assert status in await ask(stream, request_)

    play(scenario)


def test_who_is_slow_is_dropped(monkeypatch):
    monkeypatch.setattr(scraping, "PATIENCE_SECONDS", 0.1)

    async def scenario(connect: Connect) -> None:
        async with await connect() as slow:
            with suppress(trio.BrokenResourceError):  # that is the end, too
                await slow.send_all(b"GET /met")
                assert await slow.receive_some(100) == b""

    play(scenario)


def test_who_waits_or_goes_away_keeps_nobody_else_waiting(caplog):
    async def scenario(connect: Connect) -> None:
        slow = await connect()
        await slow.send_all(b"GET /met")
        gone = await connect()
        await gone.send_all(b"GET /metrics HTTP/1.1\r\n\r\n")
        await gone.aclose()
        assert b"200 OK" in await ask(await connect(), b"GET /metrics HTTP/1.1\r\n\r\n")
        await slow.aclose()

    play(scenario)
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


async def answered(connect: Connect, status: bytes) -> None:
    """Scrape until the answer is this one: who came before may not be accepted, or gone, yet."""
    answer = b""
    while status not in answer:
        answer = await ask(await connect(), b"GET /metrics HTTP/1.1\r\n\r\n")


def test_there_are_so_many_clients_and_no_more():
    async def scenario(connect: Connect) -> None:
        waiting = [await connect() for _ in range(16)]
        for each in waiting:
            await each.send_all(b"GET")
        await answered(connect, b"503 ")
        for each in waiting:
            await each.aclose()
        await answered(connect, b"200 OK")

    play(scenario)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_an_address_that_cannot_be_is_named(host):
    with pytest.raises(MountError, match=f"metrics cannot be served on {host}:80"):
        listen(Address(host, 80))


def test_an_address_in_use_is_named():
    with listen(Address("127.0.0.1", 0)) as used:
        port = used.getsockname()[1]
        with pytest.raises(MountError, match="in use"):
            listen(Address("127.0.0.1", port))
