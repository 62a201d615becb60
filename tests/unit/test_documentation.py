"""The documentation says what the code does: tables, options, names and links."""

import inspect
import re
import struct
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from xxhash import xxh3_64_intdigest

from mapfs import __version__
from mapfs.cli import mapfs, mount_helper
from mapfs.filesystem import check, names_check
from mapfs.filesystem.caller import Caller
from mapfs.filesystem.filesystem import Filesystem, Listing
from mapfs.format import frames, records, superblock, totals
from mapfs.format.extent import Extent
from mapfs.format.frames import Kind
from mapfs.format.records import (
    NOT_COUNTED,
    ROOT_INODE,
    Advice,
    Counted,
    Entry,
    Inode,
    Listed,
    State,
    Table,
)
from mapfs.format.superblock import Superblock
from mapfs.format.totals import TOTALS_BYTES, Totals
from mapfs.fuse import options
from mapfs.fuse.options import MountOptions
from mapfs.store.opening import ephemeral_store

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])
MAN_PAGES = sorted((DOCS / "man").glob("*.md"))
INTEGER_SIZES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "i64": 8, "i128": 16}
MAN_SECTIONS = [
    "NAME",
    "SYNOPSIS",
    "DESCRIPTION",
    "OPTIONS",
    "EXIT STATUS",
    "EXAMPLES",
    "SEE ALSO",
]


class Field(NamedTuple):
    """One row of a layout; `size` is None for what takes the rest."""

    offset: int
    type: str
    name: str

    @property
    def size(self) -> int | None:
        if self.type == "bytes":
            return None
        return INTEGER_SIZES.get(self.type) or int(self.type.removeprefix("bytes:"))

    def read(self, record: bytes) -> Any:
        end = None if self.size is None else self.offset + self.size
        value = record[self.offset : end]
        if self.type not in INTEGER_SIZES:
            return value
        return int.from_bytes(value, "little", signed=self.type.startswith("i"))


def section(page: Path, title: str) -> str:
    """What stands under a heading, up to the next heading of any level."""
    pattern = rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)"
    return matched(pattern, page.read_text(), re.DOTALL | re.MULTILINE)[1]


def matched(pattern: str, text: str, flags: int = 0) -> re.Match[str]:
    found = re.search(pattern, text, flags)
    assert found, f"nothing matches {pattern}"
    return found


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows, headers left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    headers = {number for number, line in enumerate(lines) if line.startswith("|---")}
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for number, line in enumerate(lines)
        if number not in headers and number + 1 not in headers
    ]


def layout(title: str) -> list[Field]:
    cells = rows(section(DOCS / "format.md", title))
    return [Field(int(offset), kind, name) for offset, kind, name, _ in cells]


def quoted(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


# Format

LAYOUTS = {
    "Superblock": superblock.BLOCK_BYTES,
    "Inode": records._INODE.size,
    "Totals": totals._TOTALS.size,
    "Entry": records._ENTRY.size,
    "Listing": records._COOKIE.size,
    "Extent": records._EXTENT.size,
    "State": records._STATE.size,
    "Half header": frames.HALF_HEADER_BYTES,
    "Frame": frames.FRAME_HEADER_BYTES,
    "Change": frames._CHANGE.size,
    "Counted": records._COUNTED.size,
}


@pytest.mark.parametrize("title", LAYOUTS)
def test_fields_follow_each_other(title):
    offset = 0
    for field in layout(title):
        assert field.offset == offset, field.name
        offset += field.size or 0
    assert offset == LAYOUTS[title]


def test_every_struct_is_described():
    modules = (superblock, records, totals, frames)
    structs = [each for module in modules for each in vars(module).values()]
    found = {each.format for each in structs if isinstance(each, struct.Struct)}
    parts = {each.format for each in (superblock.CHECKSUM, superblock.FIELDS, frames._HALF)}
    parts |= {frames._FRAME.format, records._COUNT.format}  # beside a checksum, or one number
    keys = {records._ID.format, records._ID_PAIR.format}
    assert len(found - parts - keys) == len(LAYOUTS) - len({"Superblock", "Half header", "Frame"})


def numbered(names: list[str]) -> dict[str, Any]:
    """A different value for each field, so that no two can be mistaken for each other."""
    return {name: 1000 + number for number, name in enumerate(names)}


def assert_described(title: str, record: bytes, expected: dict[str, Any]) -> None:
    described = layout(title)
    assert {field.name: field.read(record) for field in described} == expected
    sizes = [len(expected[each.name]) if each.size is None else each.size for each in described]
    assert len(record) == sum(sizes)


def test_counters():
    values = numbered([field.name for field in fields(State)])
    assert_described("State", State(**values).pack(), values)
    values = numbered(list(Totals._fields))
    assert_described("Totals", Totals(**values).pack(), values)


def test_inode():
    names = [field.name for field in fields(Inode)]
    names = names[1 : names.index("target")]  # the number is the key
    values = numbered(names) | {"mode": 0o100644}
    assert_described("Inode", Inode(16, **values).pack(), values)
    described = section(DOCS / "format.md", "Inode")
    assert f"{records._INODE.size} bytes, then" in described
    assert f"{TOTALS_BYTES} bytes each" in described
    directory = Inode(16, 0o040755, 0, 0, own=Totals(1), tree=Totals(2)).pack()
    assert directory[records._INODE.size :] == Totals(1).pack() + Totals(2).pack()


def test_advice():
    documented = {word: int(number) for number, word in rows(section(DOCS / "format.md", "Advice"))}
    assert documented == {advice.name.lower(): advice.value for advice in Advice}
    inode = Inode(16, 0, 0, 0, flags=1)
    inode.advice = Advice.PIN
    assert inode.flags == 1 | documented["pin"] << 8


def test_small_records():
    entry: dict[str, Any] = {"inode": 17, "cookie": 18, "type": 0o100000}
    assert_described("Entry", Entry(**entry).pack(), entry)
    listed: dict[str, Any] = {"inode": 17, "type": 0o100000, "name": b"name"}
    assert_described("Listing", Listed(18, **listed).pack(), listed)
    extent: dict[str, Any] = {"start": 17, "count": 3}
    assert_described("Extent", records.pack_extent(Extent(**extent)), extent)


def test_counted():
    values: dict[str, Any] = {"parent": 17, "tail": 18, "prealloc": 19}
    record = Counted(share=Totals(1), **values).pack()
    assert_described("Counted", record, values | {"share": Totals(1).pack()})
    assert NOT_COUNTED.pack() == b""


def test_half_header():
    values: dict[str, Any] = {"boot_id": b"b" * 16, "uuid": b"u" * 16, "generation": 17}
    half = frames.pack_half(**values)
    text = section(DOCS / "format.md", "Log")
    assert f"a half header of {len(half)} bytes" in text
    assert f"two halves of {frames.HALF_BYTES:,} bytes" in text
    described = layout("Half header")
    found = {field.name: field.read(half) for field in described}
    checksum = xxh3_64_intdigest(half[: frames._HALF.size])
    fixed = {"magic": frames.LOG_MAGIC, "checksum": checksum, "failed": 0, "synced": 0}
    assert found == values | fixed
    offsets = {field.name: field.offset for field in described}
    assert offsets["failed"] == frames.FAILED_OFFSET
    assert offsets["synced"] == frames.SYNCED_OFFSET


def test_frame():
    changes: list[frames.Change] = [(Kind.RUN, b"key", b"value"), (Table.FREE, b"key2", None)]
    frame = frames.pack_frame(changes, generation=17, request=18)
    requests = frames.HALF_BYTES - frames.requests_offset(frames.HALF_BYTES)
    assert f"The last {requests:,} bytes of a half" in section(DOCS / "format.md", "Frame")
    described = layout("Frame")
    found = {field.name: field.read(frame) for field in described}
    body = found.pop("body")
    checksum = xxh3_64_intdigest(frame[: described[-2].offset] + body)
    assert found == {
        "length": len(body),
        "changes": len(changes),
        "generation": 17,
        "request": 18,
        "checksum": checksum,
    }
    for kind, key, value in changes:
        change = {field.name: field.read(body) for field in layout("Change")}
        data = key + (value or b"")
        assert change.pop("key_and_value")[: len(data)] == data
        length = 0xFFFFFFFF if value is None else len(value)
        assert change == {"kind": kind, "key_length": len(key), "value_length": length}
        body = body[frames._CHANGE.size + len(data) :]
    assert not body


def test_kinds_of_changes():
    text = section(DOCS / "format.md", "Kinds")
    assert f"Kinds {min(Table):d} to {max(Table):d} are the catalog's tables" in text
    assert f"the first {records.FIXED_BYTES} bytes of" in text
    described = [(cells[0], cells[1].strip("`")) for cells in rows(text)]
    assert described == [(str(kind.value), kind.name) for kind in Kind]


def test_superblock():
    values: dict[str, Any] = {"page_size": 8192, "uuid": bytes(range(16))}
    values |= {"limit_pages": 99, "created_ns": 77}
    block = Superblock(**values).pack()
    described = {field.name: field for field in layout("Superblock")}
    found = {name: field.read(block) for name, field in described.items()}
    assert not any(found.pop("zeros"))
    assert found.pop("checksum") == superblock.CHECKSUM.unpack(block[-8:])[0]
    expected = {"magic": superblock.MAGIC, "version": superblock.FORMAT_VERSION}
    assert found == values | expected
    assert described["checksum"].offset == superblock.CHECKSUM_OFFSET
    text = section(DOCS / "format.md", "Superblock")
    first, second = superblock.COPY_OFFSETS
    assert f"at offsets {first} and {second}, of {superblock.BLOCK_BYTES:,} bytes" in text
    assert superblock.MAGIC.hex(" ") in text


def test_format_version():
    text = (DOCS / "format.md").read_text()
    assert f"\nVersion {superblock.FORMAT_VERSION}. " in text
    assert rows(section(DOCS / "format.md", "What changed between versions"))[-1][0] == str(
        superblock.FORMAT_VERSION
    )


def test_first_ids():
    text = section(DOCS / "format.md", "Catalog")
    assert f"Inode {ROOT_INODE} is the root" in text
    assert f"which starts at {records.FIRST_ID}" in text


class Shape(NamedTuple):
    """The lengths that keys or values of a table may have."""

    least: int
    open_ended: bool

    def fits(self, record: bytes) -> bool:
        return len(record) > self.least if self.open_ended else len(record) == self.least


def shape(cell: str) -> Shape:
    """`u64 inode, bytes name`, `nothing`, or a link to a layout, as lengths."""
    if link := re.fullmatch(r"\[.*\]\(#(.*)\)", cell):
        described = layout(link[1].capitalize())
    elif cell == "nothing":
        described = []
    else:
        described = [Field(0, *part.split()) for part in cell.split(", ")]
    sizes = [field.size for field in described]
    return Shape(sum(size or 0 for size in sizes), None in sizes)


@pytest.fixture
def filesystem() -> Iterator[Filesystem]:
    """One with a record in every table."""
    made = Filesystem(ephemeral_store(64 << 20, 4096), listing=Listing.ALWAYS)
    caller = Caller(0, 0)
    directory = made.mkdir(ROOT_INODE, b"directory", 0o755, caller).number
    file = made.create(directory, b"file", 0o644, caller).number
    made.link(file, ROOT_INODE, b"link")
    made.write(file, 0, b"content")
    made.setxattr(file, b"user.name", b"value")
    made.create_unnamed(directory, 0o644, caller)
    made.commit()
    yield made
    made.close()


def test_tables(filesystem):
    described = {cells[0].strip("`"): cells[1:3] for cells in rows(section_of_catalog())}
    assert list(described) == [table.name.lower() for table in Table]
    for table in Table:
        key_shape, value_shape = map(shape, described[table.name.lower()])
        if table is Table.INODES:  # totals or a target may follow
            value_shape = Shape(value_shape.least - 1, open_ended=True)
        found = list(filesystem.store.catalog.scan(table, b"", b"\xff" * 300))
        assert found, f"no record in {table.name}"
        for key, value in found:
            if table is Table.META:
                assert key in (records.META_UUID, records.META_STATE, records.META_LOST)
                continue
            assert key_shape.fits(key), table.name
            assert value_shape.fits(value), table.name


def section_of_catalog() -> str:
    return section(DOCS / "format.md", "Catalog")


def test_every_invariant_of_fsck_is_listed():
    source = "".join(map(inspect.getsource, (check, names_check)))
    checked = set(re.findall(r'Finding\(\s*"([a-z-]+)"', source))
    assert source.count("Finding(") == len(re.findall(r'Finding\(\s*"', source))
    documented = [cells[0].strip("`") for cells in rows(section(DOCS / "format.md", "Invariants"))]
    assert len(documented) == len(set(documented))
    assert set(documented) == checked


# Attributes


def expanded(name: str) -> list[str]:
    """`a.{b,c}` as `a.b` and `a.c`."""
    found = re.fullmatch(r"(.*)\{(.*)\}(.*)", name)
    return [found[1] + each + found[3] for each in found[2].split(",")] if found else [name]


def test_every_attribute_is_listed(filesystem):
    first_cells = [cells[0] for cells in rows(section(ROOT / "README.md", "Attributes"))]
    documented = {
        name for cell in first_cells for pattern in quoted(cell) for name in expanded(pattern)
    }
    file = filesystem.resolve(b"link").number
    answered = {
        name.decode().removeprefix("user.mapfs.")
        for inode in (ROOT_INODE, file)
        for name in filesystem.listxattr(inode)
        if name.startswith(b"user.mapfs.")
    }
    groups = {"file", "dir", "fs"}
    aggregates = groups | {f"{group}.json" for group in groups}
    assert documented == answered - aggregates
    assert answered >= aggregates


# Manual pages


@cache
def commands() -> dict[str, click.Command]:
    """The command that each manual page is about."""
    context = click.Context(mapfs)
    found: dict[str, click.Command] = {"mapfs.1.md": mapfs}
    for verb in mapfs.list_commands(context):
        command = mapfs.get_command(context, verb)
        assert command is not None
        found[f"mapfs-{verb}.1.md"] = command
    found["mount.fuse.mapfs.8.md"] = mount_helper.command
    return found


def with_subcommands(command: click.Command) -> list[click.Command]:
    """A verb, and what it has of commands of its own."""
    if command is mapfs or not isinstance(command, click.Group):
        return [command]
    return [command, *command.commands.values()]


def option_names(command: click.Command) -> set[str]:
    return set().union(*map(own_option_names, with_subcommands(command)))


def own_option_names(command: click.Command) -> set[str]:
    settings = command.context_settings
    if command is not mapfs and command is not mount_helper.command:
        settings = {**mapfs.context_settings, **settings}  # a verb inherits them
    parameters = command.get_params(click.Context(command, **settings))
    named = (parameter for parameter in parameters if isinstance(parameter, click.Option))
    return {name for option in named for name in (*option.opts, *option.secondary_opts)}


def test_every_command_has_a_manual_page():
    assert {page.name for page in MAN_PAGES} == set(commands())


@pytest.mark.parametrize("page", MAN_PAGES, ids=lambda page: page.name)
def test_manual_page(page):
    name, number = matched(r"^(.*)\.(\d)\.md$", page.name).groups()
    text = page.read_text()
    assert text.startswith(f"# {name}({number})\n")
    assert section(page, "NAME").strip().startswith(f"{name} - ")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert [heading for heading in headings if heading != "MOUNT OPTIONS"] == MAN_SECTIONS


@pytest.mark.parametrize("page", MAN_PAGES, ids=lambda page: page.name)
def test_options_of_manual_page(page):
    command = commands()[page.name]
    items = re.findall(r"^- (`-.*?): ", section(page, "OPTIONS"), re.MULTILINE)
    documented = [name for item in items for name in quoted(item)]
    assert len(documented) == len(set(documented))
    assert set(documented) == option_names(command)
    used = {name for name in quoted(section(page, "SYNOPSIS")) if name.startswith("-")}
    assert used <= set(documented)


@pytest.mark.parametrize("page", MAN_PAGES, ids=lambda page: page.name)
def test_arguments_of_manual_page(page):
    command = commands()[page.name]
    wanted = {
        word.removesuffix("S") if argument.nargs == -1 else word
        for each in with_subcommands(command)
        for argument in each.params
        if isinstance(argument, click.Argument)
        for word in re.findall(r"[A-Z]+", argument.make_metavar(click.Context(each)))
    }
    assert wanted <= set(re.findall(r"\*([A-Z]+)\*", section(page, "SYNOPSIS")))


@pytest.mark.parametrize("page", MAN_PAGES, ids=lambda page: page.name)
def test_options_of_synopsis(page):
    """Each option is in the synopsis, by one of its names, unless that has *OPTION* for them."""
    synopsis = section(page, "SYNOPSIS")
    if "*OPTION*" in synopsis:
        return
    items = re.findall(r"^- (`-.*?): ", section(page, "OPTIONS"), re.MULTILINE)
    for item in items:
        assert quoted(item) & {*quoted(synopsis), "--help"}, item


@pytest.mark.parametrize("page", MAN_PAGES, ids=lambda page: page.name)
def test_help_has_an_example(page):
    command = commands()[page.name]
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    examples = [each for each in paragraphs if each.startswith("\b")]
    name = page.name.split(".")[0].replace("-", " ")
    words = "mount -t fuse.mapfs " if command is mount_helper.command else f"{name} "
    assert any(words in each for each in examples)


def test_mount_options():
    text = section(DOCS / "man" / "mapfs-mount.1.md", "MOUNT OPTIONS")
    taken = {name for cells in rows(text) for name in quoted(cells[0])}
    ignored = quoted(matched(r"^Accepted and ignored.*$", text, re.MULTILINE)[0])
    known = {*options._OURS, *options._SETS, *options._CLEARS}
    assert {re.sub("=.*", "=", name) for name in taken} == known
    assert ignored == options._IGNORED | {"comment=", "x-"}
    for name in taken:
        if not name.endswith("="):
            MountOptions().with_text(name)


# Everything else


def test_every_module_is_in_the_table_of_architecture():
    cells = [cells[0] for cells in rows(section(DOCS / "architecture.md", "Layers"))]
    documented = {name for cell in cells for name in quoted(cell)}
    package = ROOT / "mapfs"
    modules = {str(path.relative_to(package)) for path in package.rglob("*.py")}
    assert documented == {name for name in modules if not Path(name).name.startswith("__")}


def test_dependencies_have_reasons():
    listed = matched(r"\ndependencies = \[(.*?)\]", read("pyproject.toml"), re.DOTALL)[1]
    reasons = {cells[0] for cells in rows(section(DOCS / "architecture.md", "Dependencies"))}
    assert reasons == set(re.findall(r'"([a-z0-9-]+)>=', listed))


def read(name: str) -> str:
    return (ROOT / name).read_text()


def test_changelog_has_this_version():
    assert f"\n## [{__version__}]" in read("CHANGELOG.md")


def anchors(page: Path) -> set[str]:
    """The fragments that headings can be linked by."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        name, _, fragment = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        assert not fragment or fragment in anchors(linked), target
