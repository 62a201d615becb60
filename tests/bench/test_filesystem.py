"""What one call of `Filesystem` costs: `pytest tests/bench --benchmark-enable` measures."""

from collections.abc import Callable, Iterator
from itertools import count

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mapfs.errors import NoAttributeError
from mapfs.filesystem.filesystem import Changes, Filesystem
from tests.unit.support import ME, PAGE, ROOT, make

FILES = 1000
# Far below what asks for a commit, so that none is due within a measurement.
ROUNDS = 500
SMALL = b"x" * 3000


@pytest.fixture
def names() -> Iterator[bytes]:
    return (b"file%06d" % number for number in count())


@pytest.fixture
def directory(fs: Filesystem) -> int:
    """A directory with 1,000 small files, committed."""
    directory = fs.mkdir(ROOT, b"d", 0o755, ME).number
    for number in range(FILES):
        make(fs, b"%d" % number, SMALL, directory)
    fs.commit()
    return directory


def each_time(
    benchmark: BenchmarkFixture, prepare: Callable[[], tuple[object, ...]], call: Callable
) -> None:
    """Measure a call that changes what it is called with, which `prepare` makes anew."""
    benchmark.pedantic(
        call, setup=lambda: (prepare(), {}), rounds=ROUNDS if benchmark.enabled else 1
    )


def test_create(benchmark: BenchmarkFixture, fs: Filesystem, names: Iterator[bytes]) -> None:
    each_time(benchmark, lambda: (ROOT, next(names), 0o644, ME), fs.create)


def test_lookup(benchmark: BenchmarkFixture, fs: Filesystem, directory: int) -> None:
    assert benchmark(fs.lookup, directory, b"77").size == len(SMALL)


def test_lookup_of_nothing(benchmark: BenchmarkFixture, fs: Filesystem, directory: int) -> None:
    def miss() -> None:
        with pytest.raises(Exception, match="no such entry"):
            fs.lookup(directory, b"nothing")

    benchmark(miss)


def test_inode(benchmark: BenchmarkFixture, fs: Filesystem, directory: int) -> None:
    assert benchmark(fs.inode, directory).number == directory


def test_unlink(benchmark: BenchmarkFixture, fs: Filesystem, names: Iterator[bytes]) -> None:
    def prepare() -> tuple[int, bytes]:
        name = next(names)
        make(fs, name, SMALL)
        return ROOT, name

    each_time(benchmark, prepare, fs.unlink)


def test_forget(benchmark: BenchmarkFixture, fs: Filesystem, names: Iterator[bytes]) -> None:
    def prepare() -> tuple[int]:
        name = next(names)
        number = make(fs, name, SMALL)
        fs.unlink(ROOT, name)
        return (number,)

    each_time(benchmark, prepare, fs.forget)


def test_is_orphan(benchmark: BenchmarkFixture, fs: Filesystem, directory: int) -> None:
    assert not benchmark(fs.is_orphan, directory)


def test_setattr(benchmark: BenchmarkFixture, fs: Filesystem) -> None:
    changes = Changes(mtime=1, ctime=1)
    each_time(benchmark, lambda: (ROOT, changes), fs.setattr)


def test_getxattr_of_none(benchmark: BenchmarkFixture, fs: Filesystem, directory: int) -> None:
    def miss() -> None:
        with pytest.raises(NoAttributeError):
            fs.getxattr(directory, b"user.none")

    benchmark(miss)


def test_readdir(benchmark: BenchmarkFixture, fs: Filesystem, directory: int) -> None:
    assert len(benchmark(lambda: list(fs.readdir(directory)))) == FILES + 2


def test_readdirplus(benchmark: BenchmarkFixture, fs: Filesystem, directory: int) -> None:
    assert len(benchmark(lambda: list(fs.readdirplus(directory)))) == FILES + 2


def test_write_3kb_to_a_new_file(
    benchmark: BenchmarkFixture, fs: Filesystem, names: Iterator[bytes]
) -> None:
    each_time(benchmark, lambda: (make(fs, next(names)), 0, SMALL), fs.write)


@pytest.mark.parametrize("size", [PAGE, 1 << 20])
def test_overwrite(benchmark: BenchmarkFixture, fs: Filesystem, size: int) -> None:
    data = bytes(size)
    number = make(fs, b"f", data)
    assert benchmark(lambda: fs.write(number, 0, data, stamp=False)) == size


def test_append_4_kib(benchmark: BenchmarkFixture, fs: Filesystem) -> None:
    number = make(fs, b"f")
    each_time(benchmark, lambda: (number, fs.inode(number).size, bytes(PAGE)), fs.write)


@pytest.mark.parametrize("size", [PAGE, 128 << 10])
def test_read(benchmark: BenchmarkFixture, fs: Filesystem, size: int) -> None:
    number = make(fs, b"f", bytes(1 << 20))

    def read() -> int:
        assert fs.cold_loader(number, 4 * PAGE, size) is None
        return sum(view.nbytes for view in fs.read(number, 4 * PAGE, size))

    assert benchmark(read) == size


@pytest.mark.parametrize("files", [1, FILES])
def test_commit(
    benchmark: BenchmarkFixture, fs: Filesystem, names: Iterator[bytes], files: int
) -> None:
    def prepare() -> tuple[()]:
        for _ in range(files):
            make(fs, next(names), SMALL)
        return ()

    benchmark.pedantic(
        fs.commit, setup=lambda: (prepare(), {}), rounds=5 if benchmark.enabled else 1
    )
