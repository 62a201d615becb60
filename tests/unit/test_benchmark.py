"""The benchmark's arithmetic, order and reports, with figures made up."""

import json
import math
import random
import statistics
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmark import comparison
from benchmark.command import arguments
from benchmark.floors import reaches
from benchmark.limits import Host, Tmpfs
from benchmark.plot import as_svg
from benchmark.report import as_json, as_markdown, rounded, table
from benchmark.results import Failure, Results, Sample, SystemDescription
from benchmark.schedule import Plan
from benchmark.summary import best_peer, ratio, spread
from benchmark.workloads import WORKLOADS, Sizes
from mapfs.claims.samples import samples_outside

STAT = "stat, warm"
READ = "sequential read, cold"


def described(**roles: str) -> Results:
    systems = [SystemDescription(name, role, "1.0", "-o x|y", "") for name, role in roles.items()]
    return Results(systems, {}, {"kernel": "6"}, {"repeat": "3"})


def samples(name: str, system: str, values: list[float], unit: str = "µs") -> list[Sample]:
    return [Sample(name, system, number, value, unit) for number, value in enumerate(values)]


@pytest.fixture
def results() -> Results:
    """`slow` takes twice as long as ext4, `fast` as long, mapfs between them."""
    made = described(ext4="limit", slow="peer", fast="peer", mapfs="mapfs")
    for system, factor in (("ext4", 1.0), ("slow", 2.0), ("fast", 1.0), ("mapfs", 1.25)):
        made.samples += samples(STAT, system, [factor * value for value in (8, 10, 40)])
        made.samples += samples(READ, system, [value / factor for value in (50, 60, 70)], "MB/s")
    return made


def test_median_and_spread() -> None:
    found = spread(samples(STAT, "x", [3.0, 1.0, 2.0]))
    assert (found.median, found.least, found.most, found.unit) == (2.0, 1.0, 3.0, "µs")


@pytest.mark.parametrize(("unit", "speed"), [("µs", 2.0), ("s", 2.0), ("MB/s", 0.5), ("/s", 0.5)])
def test_twice_the_time_is_half_the_speed_and_twice_the_rate_twice(unit: str, speed: float) -> None:
    found = ratio(samples(STAT, "x", [5.0], unit), samples(STAT, "y", [10.0], unit))
    assert found is not None
    assert found.of_medians == found.paired == speed


def test_pairs_leave_out_what_disturbs_a_repetition_as_a_whole() -> None:
    ours, theirs = samples(STAT, "x", [2, 20, 4]), samples(STAT, "y", [1, 10, 2])
    found = ratio(ours, theirs)
    assert found is not None
    assert (found.low, found.paired, found.high) == (0.5, 0.5, 0.5)


def test_only_repetitions_of_both_are_paired() -> None:
    found = ratio(samples(STAT, "x", [1, 1]), samples(STAT, "y", [1, 2, 9]))
    assert found is not None
    assert (found.low, found.high) == (1, 2)
    assert ratio(samples(STAT, "x", [1]), []) is None


@pytest.mark.parametrize(("count", "outside"), [(1, 0), (3, 0), (5, 0), (7, 0), (8, 1), (20, 5)])
def test_samples_outside(count: int, outside: int) -> None:
    assert samples_outside(count) == outside


@pytest.mark.parametrize("count", [5, 8, 13, 20, 31])
def test_the_interval_holds_the_median_as_often_as_it_says(count: int) -> None:
    chance = random.Random(count)
    outside = samples_outside(count)
    held = 0
    for _ in range(2000):
        drawn = sorted(chance.expovariate(math.log(2)) for _ in range(count))  # its median is 1
        held += drawn[outside] <= 1 <= drawn[-1 - outside]
    assert held / 2000 > 0.88


@pytest.mark.parametrize(
    ("now", "slower"),
    [
        ([10, 10, 10, 10, 10], False),
        ([10.4, 10.4, 10.4, 10.4, 10.4], False),  # within five hundredths
        ([10.7, 11, 12, 10.6, 11], True),
        ([20, 20, 20, 20, 9.9], False),  # one repetition says otherwise: noise
        ([5, 5, 5, 5, 5], False),
    ],
)
def test_slower_is_beyond_the_noise(now: list[float], *, slower: bool) -> None:
    made = described(now="mapfs", before="mapfs")
    made.samples += samples(STAT, "now", now) + samples(STAT, "before", [10.0] * 5)
    assert comparison.slower_now(made) == [STAT] * slower
    assert ("slower" in comparison.as_markdown(made).splitlines()[-1]) is slower


def test_the_best_peer_is_the_fastest_and_no_limit(results: Results) -> None:
    assert best_peer(results, STAT) == "fast"
    assert best_peer(results, READ) == "fast"
    assert best_peer(described(ext4="limit"), STAT) is None


def test_floors(results: Results) -> None:
    found = {(each.measurement, each.against): each for each in reaches(results, "mapfs")}
    assert set(found) == {(STAT, "fast"), (STAT, "ext4"), (READ, "fast"), (READ, "ext4")}
    assert found[STAT, "ext4"].measured == pytest.approx(0.8)
    assert not found[STAT, "ext4"].reached
    results.samples = [each for each in results.samples if each.system != "mapfs"]
    results.samples += samples(STAT, "mapfs", [1.0])
    assert [each.reached for each in reaches(results, "mapfs")] == [True, True]


def test_markdown_has_every_table_and_every_problem(results: Results) -> None:
    results.skipped["gone"] = "cannot be had"
    results.failures.append(Failure("files", "slow", "exit code 1"))
    text = as_markdown(results)
    assert "| stat, warm (µs) | 10.0 (8.00 to 40.0) | 20.0 (16.0 to 80.0) |" in text
    assert "| stat, warm | 0.800 (0.800) | fast | 0.800 (0.800) | 1.60 (1.60) |" in text
    assert "| stat, warm | fast | 1 | 0.800 | **no** |" in text
    assert "| gone | everything | cannot be had |" in text
    assert "| slow | files | exit code 1 |" in text
    assert "`-o x\\|y`" in text


def test_a_system_that_failed_leaves_a_gap(results: Results) -> None:
    results.samples = [
        each for each in results.samples if (each.system, each.measurement) != ("slow", READ)
    ]
    text = as_markdown(results)
    assert "| sequential read, cold (MB/s) | 60.0 (50.0 to 70.0) | – |" in text


def test_json_has_samples_and_statistics(results: Results) -> None:
    whole = json.loads(as_json(results))
    assert len(whole["samples"]) == len(results.samples)
    mine = next(each for each in whole["statistics"] if each["system"] == "mapfs")
    assert mine["median"] == statistics.median(sample.value for sample in results.of(STAT, "mapfs"))
    assert mine["ratio_to"]["slow"]["of_medians"] == pytest.approx(1.6)


def test_the_plot_has_a_mark_for_each_system_and_measurement(results: Results) -> None:
    picture = ET.fromstring(as_svg(results, "ext4"))
    titles = Counter(element.text for element in picture.iter() if element.tag.endswith("title"))
    in_the_legend = 1
    assert titles == dict.fromkeys(("slow", "fast", "mapfs"), 2 + in_the_legend)
    assert as_svg(results, "unknown") == ""


@pytest.mark.parametrize(
    ("value", "text"), [(0.012345, "0.0123"), (1.5, "1.50"), (99.94, "99.9"), (1234.5, "1,234")]
)
def test_rounded(value: float, text: str) -> None:
    assert rounded(value) == text


def test_table() -> None:
    assert table(["a", "b"], [["1", "2\n3"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 3 |\n"


def test_every_repetition_has_each_workload_on_each_system_in_a_row() -> None:
    systems = [Tmpfs(Path("a"), 0), Host(Path("b"), 0)]
    plan = Plan(systems, {name: WORKLOADS[name] for name in ("files", "stream")}, 20, seed=7)
    steps = list(plan.steps())
    assert len(steps) == len(plan) == len(set(steps)) == 80
    firsts = steps[::2]
    assert [step[:2] for step in firsts] == [step[:2] for step in steps[1::2]]
    assert {system.name for _, _, system in firsts} == {"tmpfs", "host"}
    assert steps == list(plan.steps())


def test_sizes_grow_with_the_scale_and_are_never_nothing() -> None:
    full, half, tiny = Sizes.scaled(1), Sizes.scaled(0.5), Sizes.scaled(1e-9)
    assert (full.stream_bytes, full.unlinked, full.listed) == (1 << 30, 20_000, 100_000)
    assert half.listed == 50_000
    assert tiny.files > 0
    assert tiny.seconds > 0


@pytest.mark.parametrize(
    "words",
    [
        ["--systems", "fat"],
        ["--workloads", "files,nothing"],
        ["--compare", "x", "--systems", "ext4"],
    ],
)
def test_bad_arguments(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        arguments(words)
    assert error.value.code == 2
    assert "bench: error" in capsys.readouterr().err
