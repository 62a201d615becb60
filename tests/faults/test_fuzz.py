"""Damage at random: whatever the bytes are, opening, walking, reading and checking a store ends.

Each case is made from a seed, which a failure names; `FUZZ_SEED` runs one again and `FUZZ_SECONDS`
makes the fuzzer go on for longer.
"""

import itertools
import os
import random
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from xxhash import xxh3_64_intdigest

from mapfs.format.frames import (
    HALF_BYTES,
    HALF_HEADER_BYTES,
    Change,
    pack_frame,
    unpack_frames,
    unpack_half,
)
from mapfs.format.records import META_LOST, META_UUID, Table, pack_lost
from mapfs.format.superblock import BLOCK_BYTES, CHECKSUM_OFFSET, MAGIC
from tests.faults.bundles import PAGE, change, copy, records
from tests.faults.child import Ended, run_child
from tests.faults.open_all import main as open_all

SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))
FIRST_SEED = int(os.environ.get("FUZZ_SEED", "1"))
ONCE = "FUZZ_SEED" in os.environ and "FUZZ_SECONDS" not in os.environ
# Seeds that once found something.
KEPT = (700, 712)


def mangle(data: bytes, chance: random.Random) -> bytes:
    """Change some bytes as disks, programs and people with bad intentions do."""
    mangled = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5))):
        if not mangled:
            return bytes(chance.randbytes(chance.randrange(20)))
        at = chance.randrange(len(mangled))
        width = min(chance.choice((1, 2, 4, 8)), len(mangled) - at)
        if chance.random() < 0.4:
            mangled[at] ^= 1 << chance.randrange(8)
        elif chance.random() < 0.6:
            value = chance.choice((0, 1, (1 << 8 * width) - 1, 1 << (8 * width - 1), 4096))
            mangled[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "little")
        elif chance.random() < 0.5:
            mangled[at : at + width] = chance.randbytes(width)
        else:
            del mangled[at : at + width]
    return bytes(mangled)


def damage_superblock(bundle: Path, chance: random.Random) -> None:
    block = (bundle / "store").read_bytes()[:BLOCK_BYTES]
    fields = mangle(block[:48], chance)[:48].ljust(48, b"\0")
    body = fields + block[48:CHECKSUM_OFFSET]
    if chance.random() < 0.8:
        block = body + xxh3_64_intdigest(body).to_bytes(8, "little")
    else:
        block = body + block[CHECKSUM_OFFSET:]
    with (bundle / "store").open("r+b") as file:
        file.write(block * 2)


def damage_records(bundle: Path, chance: random.Random) -> None:
    """Change records, whole as LMDB sees them; keys too."""
    for _ in range(chance.choice((1, 2, 10))):
        table = chance.choice(list(Table))
        found = records(bundle, table)
        changes: dict[bytes, bytes | None] = {}
        for key in chance.sample(sorted(found), min(len(found), chance.choice((1, 3)))):
            value = found[key]
            if chance.random() < 0.2:
                changes[key] = None
            elif chance.random() < 0.3 and key != META_UUID:
                changes[mangle(key, chance)[:500] or b"k"] = value
            elif key != META_UUID:
                changes[key] = mangle(value, chance)
        if not found:
            changes[chance.randbytes(chance.choice((8, 16)))] = chance.randbytes(8)
        change(bundle, table, changes)


def damage_catalog_pages(bundle: Path, chance: random.Random) -> None:
    """Change the catalog's file below LMDB."""
    data = bytearray((bundle / "catalog").read_bytes())
    for _ in range(chance.choice((1, 3, 30))):
        page = chance.randrange(len(data) // PAGE)
        # The heads, and the headers and offsets of a page, matter more than what is in records.
        length = chance.choice((160, 64, PAGE))
        start = page * PAGE
        piece = mangle(bytes(data[start : start + length]), chance)[:length].ljust(length, b"\0")
        data[start : start + length] = piece
    if chance.random() < 0.2:
        del data[chance.randrange(len(data)) :]
    (bundle / "catalog").write_bytes(data)


def damage_log(bundle: Path, chance: random.Random) -> None:
    """Change frames and give them right checksums, or change bytes anywhere."""
    log = bytearray((bundle / "log").read_bytes())
    for start in (0, HALF_BYTES):
        uuid = bytes(log[start + 24 : start + 40])
        half = unpack_half(bytes(log[start : start + HALF_HEADER_BYTES]), uuid)
        generation = half.generation if half is not None else 0
        frames = list(unpack_frames(bytes(log[start : start + HALF_BYTES]), generation))
        offset = start + HALF_HEADER_BYTES
        for changes in frames:
            mangled = [mangle_change(each, chance) for each in changes]
            frame = pack_frame(mangled, generation)
            log[offset : offset + len(frame)] = frame
            offset += len(frame)
        if chance.random() < 0.3:
            at = start + chance.randrange(1 << 12)
            log[at : at + 8] = chance.randbytes(8)
    (bundle / "log").write_bytes(log)


def damage_lost(bundle: Path, chance: random.Random) -> None:
    """Let pages be lost, some of files, some impossible."""
    places = (0, 1, PAGE, 1 << 20, 1 << 40, (1 << 64) - 1, chance.randrange(64 << 20))
    found = pack_lost((chance.choice(places), chance.choice(places)) for _ in range(3))
    change(
        bundle, Table.META, {META_LOST: mangle(found, chance) if chance.random() < 0.3 else found}
    )


def mangle_change(each: Change, chance: random.Random) -> Change:
    if chance.random() > 0.02:
        return each
    kind, key, value = each
    if chance.random() < 0.2:
        kind = chance.choice((*range(12), 32, 33, 34, 35, 36, 255))
    if chance.random() < 0.3:
        key = mangle(key, chance)[:500]
    if chance.random() < 0.7:
        value = None if chance.random() < 0.1 or value is None else mangle(value, chance)
    return kind, key, value


DAMAGES: list[Callable[[Path, random.Random], None]] = [
    damage_superblock,
    damage_records,
    damage_records,
    damage_catalog_pages,
    damage_log,
]


def try_seed(seed: int, good: Path, logged: Path, at: Path) -> None:
    chance = random.Random(seed)
    damage = chance.choice(DAMAGES)
    bundle = copy(logged if damage is damage_log or chance.random() < 0.2 else good, at)
    try:
        damage(bundle, chance)
        held = damage is not damage_superblock
        for read_only in (True, False):
            assert_ended(seed, run_child(partial(open_all, bundle, read_only=read_only)))
        if held:
            head = (bundle / "store").read_bytes()[: 2 * BLOCK_BYTES]
            assert head.startswith(MAGIC), f"seed {seed}: the superblock was overwritten"
            assert head[BLOCK_BYTES:].startswith(MAGIC), f"seed {seed}: the superblock's copy"
    finally:
        shutil.rmtree(at)


def assert_ended(seed: int, ended: Ended) -> None:
    assert ended.code in (0, 1), f"seed {seed}: {ended.code} {ended.err[-1500:]}"
    assert "Traceback" not in ended.err, f"seed {seed}: {ended.err[-1500:]}"
    if ended.code:
        assert len(ended.err.splitlines()) == 1, f"seed {seed}: {ended.err}"


@pytest.mark.slow
def test_whatever_the_bytes_are(good_bundle: Path, logged_bundle: Path, tmp_path: Path) -> None:
    deadline = time.monotonic() + SECONDS
    failures = list[str]()
    kept = () if "FUZZ_SEED" in os.environ else KEPT
    tried = 0
    for seed in itertools.chain(kept, itertools.count(FIRST_SEED)):
        tried += 1
        try:
            try_seed(seed, good_bundle, logged_bundle, tmp_path / f"{seed}.mapfs")
        except AssertionError as error:
            failures.append(str(error))
        if time.monotonic() > deadline or ONCE:
            break
    assert not failures, f"{len(failures)} of {tried} seeds\n" + "\n".join(failures[:9])


def test_whatever_is_said_to_be_lost(good_bundle: Path, tmp_path: Path) -> None:
    for seed in range(20):
        bundle = copy(good_bundle, tmp_path / f"{seed}.mapfs")
        damage_lost(bundle, random.Random(seed))
        for read_only in (True, False):
            assert_ended(seed, run_child(partial(open_all, bundle, read_only=read_only)))
        shutil.rmtree(bundle)
