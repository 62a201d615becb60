"""The page of `mapfs slack --html`, as a reader uses it: with eyes, pointer and keys."""

import os
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from mapfs.names import printable
from mapfs.report.shades import shade
from tests.browser.conftest import Opened
from tests.unit.report_source import TreeOfDicts, file_of, sum_of

TREE: dict[str, Any] = {
    "large": {"one": 400_000, "below": {"two": 200_000, "three": 5000}},
    "middle": {"four": 100_000, "five": 100_000},
    "small": dict.fromkeys("abcdefgh", 700),
    "file": 300_000,
}
GAP = 2


def tile(page: Page, name: str) -> Locator:
    """The tile of what is directly in the directory that is open."""
    return page.locator(f'#map > button[aria-label^="{name}, "]')


def names_in_table(page: Page) -> list[str]:
    return page.locator("#entries tbody th").all_inner_texts()


def expect_open(page: Page, *names: str) -> None:
    """The directory that is open, with those around it."""
    expect(page.locator("#crumbs li")).to_have_text(list(names))


def focused(page: Page) -> str:
    """The name on the element that has the focus."""
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    return str(label).split(",")[0]


# What it shows


def test_tiles_are_as_large_as_what_they_take(opened: Opened) -> None:
    page = opened(TREE)
    area = page.locator("#map").bounding_box()
    assert area
    total = sum_of(TREE)
    for name, below in TREE.items():
        box = tile(page, name).bounding_box()
        assert box
        share = (box["width"] + GAP) * (box["height"] + GAP) / (area["width"] * area["height"])
        assert share == pytest.approx(sum_of(below).allocated / total.allocated, rel=0.01)


def test_tiles_are_coloured_by_slack(opened: Opened) -> None:
    page = opened({"none": 1 << 20, "some": 70_000, "most": {"a": 10}, "all": 1})
    for name, usage in (("none", file_of(1 << 20)), ("some", file_of(70_000)), ("all", file_of(1))):
        red, green, blue = bytes.fromhex(shade(usage.slack_share)[1:])
        expect(tile(page, name)).to_have_css("background-color", f"rgb({red}, {green}, {blue})")


def test_numbers_are_those_of_the_report(opened: Opened) -> None:
    page = opened(TREE)
    total = sum_of(TREE)
    figures = page.locator("#figures").inner_text()
    assert f"{total.allocated:,} bytes" in figures
    assert f"{total.size:,} bytes" in figures
    assert f"{100 * total.slack_share:.1f} % of what is allocated" in figures
    row = page.locator("#entries tr", has_text="large/")
    cells = [cell.get_attribute("title") for cell in row.locator("td").all()]
    large = sum_of(TREE["large"])
    assert cells[0] == f"{large.slack:,}"
    assert cells[2:4] == [f"{large.allocated:,}", f"{large.size:,}"]
    curve = page.locator("#what-if svg").get_attribute("aria-label")
    assert curve
    assert f"pages of 2M: {total.at_2m / (1 << 20):.1f}M slack" in curve


def test_the_tip_has_exact_numbers_of_the_deepest_tile(opened: Opened) -> None:
    page = opened(TREE)
    tip = page.locator("#tip")
    expect(tip).to_be_hidden()
    page.locator("#map .tile .tile", has_text="one").hover()
    usage = file_of(400_000)
    expect(tip).to_contain_text("large/one")
    expect(tip).to_contain_text(f"{usage.slack:,} bytes")
    expect(tip).to_contain_text(f"{usage.allocated:,} bytes")
    page.locator("h1").hover()
    expect(tip).to_be_hidden()


def test_small_files_are_one_tile(opened: Opened) -> None:
    page = opened({"big": 1 << 20, **{f"file{number}": 5000 for number in range(40)}}, most=3)
    rest = tile(page, "40 smaller files")
    assert "320.0K allocated" in (rest.get_attribute("aria-label") or "")
    rest.click()
    expect_open(page, "top")


def test_an_empty_tree(opened: Opened) -> None:
    page = opened({})
    expect(page.locator("#map")).to_have_text("Nothing here takes any space.")
    assert names_in_table(page) == []


def test_a_single_file(opened: Opened) -> None:
    page = opened(TreeOfDicts(5120))
    assert names_in_table(page) == ["top"]
    expect(tile(page, "top")).to_be_visible()


def test_hostile_names_are_shown_and_do_nothing(opened: Opened) -> None:
    names = [
        "</script><script>document.title = 'broken'</script>",
        "<img src=https://example.org/x onerror=\"document.title = 'broken'\">",
        "<b>bold</b>${data}&amp;",
        os.fsdecode(b"not utf-8 \xff"),
        "new\nline",
        "__proto__",
    ]
    page = opened({"dir": dict.fromkeys(names, 5000)})
    tile(page, "dir").click()
    assert sorted(names_in_table(page)) == sorted(map(printable, names))
    assert page.title() == "top – page slack"
    assert page.locator("script").count() == 2
    assert page.locator("main img").count() == 0


# Going into directories


def test_a_click_goes_in_and_the_crumbs_lead_back(opened: Opened) -> None:
    page = opened(TREE)
    tile(page, "large").click()
    expect_open(page, "top", "large")
    assert names_in_table(page) == ["below/", "one"]
    tile(page, "below").click()
    expect_open(page, "top", "large", "below")
    expect(page.locator("#table-title")).to_have_text("What is in below")
    tile(page, "two").click()
    expect_open(page, "top", "large", "below")
    page.get_by_role("button", name="Up").click()
    expect_open(page, "top", "large")
    page.locator("#crumbs").get_by_text("top").click()
    expect_open(page, "top")
    assert not page.locator("#up").is_visible()


def test_the_browser_goes_back_too(opened: Opened) -> None:
    page = opened(TREE)
    tile(page, "large").click()
    tile(page, "below").click()
    page.go_back()
    expect_open(page, "top", "large")
    page.reload()
    expect_open(page, "top", "large")
    page.go_back()
    expect_open(page, "top")


def test_the_table_leads_on_and_is_sorted_by_its_headings(opened: Opened) -> None:
    page = opened(TREE)
    assert names_in_table(page) == ["small/", "large/", "middle/", "file"]
    page.get_by_role("button", name="Allocated", exact=True).click()
    assert names_in_table(page) == ["large/", "file", "middle/", "small/"]
    heading = page.locator("#entries th", has_text="Allocated")
    expect(heading).to_have_attribute("aria-sort", "descending")
    page.get_by_role("button", name="Allocated", exact=True).click()
    expect(heading).to_have_attribute("aria-sort", "ascending")
    page.get_by_role("button", name="Name", exact=True).click()
    assert names_in_table(page) == ["file", "large/", "middle/", "small/"]
    page.locator("#entries").get_by_role("button", name="middle/").click()
    expect_open(page, "top", "middle")


def test_a_long_table_is_shown_in_parts(opened: Opened) -> None:
    page = opened({f"file{number:02}": 5000 for number in range(50)})
    assert len(names_in_table(page)) == 20
    page.get_by_role("button", name="Show 30 more").click()
    assert len(names_in_table(page)) == 50
    assert not page.locator("#more").is_visible()


# With keys alone


def test_all_can_be_done_with_keys(opened: Opened) -> None:
    page = opened(TREE)
    press = page.keyboard.press
    press("Tab")
    assert focused(page) == "Dark colours"
    press("Tab")  # the treemap is one stop
    assert focused(page) == "large"
    expect(page.locator("#tip")).to_contain_text("large")
    press("ArrowRight")
    assert focused(page) != "large"
    press("ArrowLeft")
    assert focused(page) == "large"
    press("Enter")
    expect_open(page, "top", "large")
    assert focused(page) == "one"
    expect(page.locator("#opened")).to_have_text("large: 2 entries")
    press("ArrowRight")
    press("ArrowDown")
    assert focused(page) == "below"
    press("Enter")
    expect_open(page, "top", "large", "below")
    press("Escape")
    assert focused(page) == "below"
    press("Escape")
    expect_open(page, "top")
    assert focused(page) == "large"
    press("Escape")
    expect_open(page, "top")


def test_every_tile_can_be_reached_with_arrow_keys(opened: Opened) -> None:
    page = opened(TREE)
    page.locator("#map button").first.focus()
    reached = {focused(page)}
    for key in ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowDown", "ArrowRight", "ArrowUp"] * 3:
        page.keyboard.press(key)
        reached.add(focused(page))
    assert reached == set(TREE)


# Looks


def test_colours_follow_the_system_and_the_button(opened: Opened) -> None:
    def background(page: Page) -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light = opened(TREE, color_scheme="light")
    dark = opened(TREE, color_scheme="dark")
    shades = background(light), background(dark)
    assert shades[0] != shades[1]
    light.get_by_role("button", name="Dark colours").click()
    dark.get_by_role("button", name="Dark colours").click()
    assert (background(dark), background(light)) == shades
    light.emulate_media(color_scheme="dark")
    assert background(light) == shades[1]


@pytest.mark.parametrize("width", [360, 800])
def test_nothing_sticks_out_of_a_narrow_window(opened: Opened, width: int) -> None:
    long = "a-rather-long-name-without-a-single-space-" * 3
    page = opened({long: {long: {long: 70_000}}, **TREE}, width=width, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    tile(page, long).tap()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    tip = page.evaluate("document.getElementById('tip').getBoundingClientRect().right")
    assert tip <= width
    texts = page.locator("#what-if text").all()
    edges = [box["x"] + box["width"] for each in texts if (box := each.bounding_box())]
    assert max(edges) <= width


def test_the_map_is_drawn_anew_for_another_width(opened: Opened) -> None:
    page = opened(TREE)
    page.set_viewport_size({"width": 500, "height": 800})
    page.wait_for_function(
        "[...document.querySelectorAll('#map > button')].every("
        "each => each.offsetLeft + each.offsetWidth <= document.getElementById('map').clientWidth)"
    )


def test_nothing_moves_for_who_wants_that(opened: Opened) -> None:
    page = opened(TREE, reduced_motion="reduce")
    expect(tile(page, "large")).to_have_css("animation-name", "none")
