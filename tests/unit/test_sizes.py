"""Sizes as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapfs.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4096B", 4096),
        ("1K", 1024),
        ("1k", 1024),
        ("512M", 512 << 20),
        ("10G", 10 << 30),
        ("1.5GiB", 3 << 29),
        ("2TB", 2 << 40),
        ("1P", 1 << 50),
        (" 7 M ", 7 << 20),
    ],
)
def test_parse(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1X", "1.5.5G", "G", "1 2", "0x10", "1e3", "1GG", "1.5", "\u0661"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0"),
        (1023, "1023"),
        (1024, "1.0K"),
        (4096, "4.0K"),
        (3 << 29, "1.5G"),
        (1 << 60, "1024.0P"),
        (-2048, "-2.0K"),
    ],
)
def test_format(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(0, 1 << 60))
def test_what_is_formatted_can_be_parsed(size: int) -> None:
    assert abs(parse_size(format_size(size)) - size) <= size * 0.05


@given(st.integers(0, 1 << 62))
def test_bytes_are_exact(size: int) -> None:
    assert parse_size(str(size)) == size
