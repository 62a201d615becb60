"""Mount options."""

from functools import reduce

import pytest

from mapfs.errors import UsageError
from mapfs.filesystem.filesystem import AccessTimes, Listing
from mapfs.fuse import options as options_module
from mapfs.fuse.cpu_latency import NO_BOUND
from mapfs.fuse.options import (
    MS_DIRSYNC,
    MS_NOATIME,
    MS_NODEV,
    MS_NODIRATIME,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_SYNCHRONOUS,
    Cache,
    MountOptions,
)


def parsed(text: str) -> MountOptions:
    return MountOptions().with_text(text)


@pytest.mark.parametrize("text", ["", ",", "defaults", "rw,,auto", "x-systemd.automount,comment=a"])
def test_what_changes_nothing(text: str) -> None:
    assert parsed(text) == MountOptions()


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("ro", MS_RDONLY),
        ("nosuid,nodev,noexec", MS_NOSUID | MS_NODEV | MS_NOEXEC),
        ("sync,dirsync", MS_SYNCHRONOUS | MS_DIRSYNC),
        ("noatime,nodiratime", MS_NOATIME | MS_NODIRATIME),
        ("ro,rw", 0),
        ("rw,ro", MS_RDONLY),
        ("nosuid,suid,noexec,exec,nodev,dev,noatime,atime,sync,async", 0),
    ],
)
def test_flags(text: str, flags: int) -> None:
    assert parsed(text).flags == flags


def test_read_only() -> None:
    assert parsed("ro").read_only
    assert not parsed("ro,rw").read_only


def test_values() -> None:
    said = parsed(
        "allow_other,noacl,cache=writethrough,commit=0.5,address_space=64M,xattrs=always,"
        "cpu_latency=0"
    )
    assert said == MountOptions(
        allow_other=True,
        acl=False,
        cache=Cache.WRITETHROUGH,
        commit=0.5,
        address_space=64 << 20,
        listing=Listing.ALWAYS,
        cpu_latency=0,
    )
    assert said.with_text("acl").acl
    assert said.with_text("cpu_latency=off").cpu_latency == NO_BOUND


@pytest.mark.parametrize("value", list(Listing))
def test_listings(value: Listing) -> None:
    assert parsed(f"xattrs={value.value}").listing is value


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", AccessTimes.ALL),
        ("relatime", AccessTimes.ALL),
        ("nodiratime", AccessTimes.FILES),
        ("noatime", AccessTimes.NONE),
        ("noatime,nodiratime", AccessTimes.NONE),
    ],
)
def test_access_times(text: str, policy: AccessTimes) -> None:
    assert parsed(text).access_times is policy


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "ro=1",
        "cache",
        "cache=",
        "cache=none",
        "commit=0",
        "commit=-1",
        "commit=3601",
        "commit=nan",
        "commit=soon",
        "address_space=1M",
        "address_space=lots",
        "cpu_latency=-1",
        "cpu_latency=10001",
        "cpu_latency=0.5",
        "cpu_latency",
        "cpu_latency=on",
        "xattrs=never",
        "allow_other=1",
    ],
)
def test_bad_options_are_named(text: str) -> None:
    with pytest.raises(UsageError, match=text.partition("=")[0]) as caught:
        parsed(f"rw,{text}")
    assert text in str(caught.value)
    assert caught.value.exit_code == 2


def test_every_flag_can_be_taken_back() -> None:
    everything = reduce(lambda flags, flag: flags | flag, options_module._SETS.values())
    assert (
        MountOptions(flags=everything & ~MS_DIRSYNC)
        .with_text(",".join(options_module._CLEARS))
        .flags
        == 0
    )


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("9100", "127.0.0.1", 9100, "127.0.0.1:9100"),
        (":9100", "127.0.0.1", 9100, "127.0.0.1:9100"),
        ("0", "127.0.0.1", 0, "127.0.0.1:0"),
        ("0.0.0.0:80", "0.0.0.0", 80, "0.0.0.0:80"),
        ("localhost:65535", "localhost", 65535, "localhost:65535"),
        ("[::1]:9100", "::1", 9100, "[::1]:9100"),
    ],
)
def test_addresses(text: str, host: str, port: int, shown: str) -> None:
    address = parsed(f"metrics={text}").metrics
    assert address == (host, port)
    assert str(address) == shown


@pytest.mark.parametrize(
    "text", ["", "x", "9100:", "65536", "-1", "::1:9100", "[::1]", "[x]:1", "a b:1", "1:2:3", "٣"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="not an address"):
        parsed(f"metrics={text}")
