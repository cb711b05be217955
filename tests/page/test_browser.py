"""The page in a real browser, without a network, at a desk and on a phone, in the light and in the dark.

Where no chromium is installed the tests are skipped, unless LIGHTNING_PRUNE_NEEDS_BROWSER is set: then they fail.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lightning_prune.cli import main
from lightning_prune.page import report_page

pytestmark = pytest.mark.slow

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
SHORT = (
    "trainer.max_epochs=2",
    "trainer.limit_train_batches=12",
    "trainer.enable_progress_bar=false",
    "callbacks=none",
)
CHANNELS = ("pruner/pattern=channel", "prune.shrink=true", "pruner.schedule.final_sparsity=0.6")
PAGES = ("weights", "channels", "both", "unfinished", "long names")
DESK, PHONE = (1280, 900), (390, 844)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of real runs: weights pruned, channels taken out, both side by side, and one that was killed."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "-cn", "digits_mlp", "hydra.run.dir=weights", *SHORT]) == 0
        assert main(["train", "-cn", "digits_cnn", "hydra.run.dir=channels", *SHORT, *CHANNELS]) == 0
    killed = shutil.copytree(folder / "weights", folder / "unfinished")
    (killed / "report.json").unlink()
    made = {name: folder / name / "report.html" for name in ("weights", "channels")}
    made["both"] = report_page(folder / "weights", folder / "channels")
    names = (f"pruner.criterion=magnitude,pruner.schedule.final_sparsity=0.9,seed={n}" for n in (0, 1))
    long = [shutil.copytree(folder / "weights", folder / name) for name in (*names, 120 * "x")]
    made["long names"] = report_page(*long, out=folder / "long.html")
    return made | {"unfinished": report_page(killed)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        why = "no chromium is installed (Debian: apt-get install chromium)"
        if os.environ.get("LIGHTNING_PRUNE_NEEDS_BROWSER"):
            pytest.fail(why)
        pytest.skip(why)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        yield running
        running.close()


@dataclass
class Opened:
    """A page in the browser, what it has said on the console, and what it has asked for."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def opened(browser: Any, pages: dict[str, Path]) -> Iterator[Any]:
    contexts: list[Any] = []

    def open_page(name: str, size: tuple[int, int] = DESK, scheme: str = "light") -> Opened:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, offline=True, reduced_motion="reduce"
        )
        contexts.append(context)
        found = Opened(context.new_page())
        found.page.on("console", lambda message: found.said.append(message.text))
        found.page.on("pageerror", lambda error: found.said.append(str(error)))
        found.page.on("request", lambda request: found.asked.append(request.url))
        found.page.goto(pages[name].as_uri())
        return found

    yield open_page
    for context in contexts:
        context.close()


def find(page: Any, script: str) -> Any:
    return page.evaluate(f"() => {{ {script} }}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("name", PAGES)
def test_it_fits_is_silent_and_can_be_read(opened: Any, name: str, size: tuple[int, int], scheme: str) -> None:
    one = opened(name, size, scheme)
    find(one.page, "document.querySelectorAll('details').forEach(each => { each.open = true; })")
    width = find(one.page, "return document.documentElement.scrollWidth")
    assert width <= size[0]
    outside = """
        const scrolls = '.scroll, pre, .unseen, svg';
        const free = [...document.querySelectorAll('main *')].filter(each => !each.closest(scrolls));
        const out = free.filter(each => each.getBoundingClientRect().right > innerWidth + 1);
        return out.map(each => each.outerHTML.slice(0, 80));
    """
    assert find(one.page, outside) == []
    assert one.said == []
    assert [url for url in one.asked if not url.startswith(("file://", "data:"))] == []
    assert len([url for url in one.asked if url.startswith("file://")]) == 1
    dark = scheme == "dark"
    assert (luminance(find(one.page, "return getComputedStyle(document.body).backgroundColor")) < 0.2) == dark
    for kind in ("h1", ".lead, .leads", "nav a", "td", "th", ".note", ".told", "summary", ".plot text", "code"):
        assert contrast(one.page, kind) >= 4.5, kind


def luminance(color: str) -> float:
    parts = [int(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(page: Any, kind: str) -> float:
    """Return the contrast of the first element of a kind with what lies behind it; 21 where there is none."""
    script = """
        const each = document.querySelector(KIND);
        if (!each) return null;
        let behind = each;
        while (getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
        const own = getComputedStyle(each);
        return [each.closest('svg') ? own.fill : own.color, getComputedStyle(behind).backgroundColor];
    """.replace("KIND", json.dumps(kind))
    pair = find(page, script)
    if pair is None:
        return 21.0
    high, low = sorted((luminance(color) for color in pair), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_their_sections(opened: Any, name: str) -> None:
    page = opened(name).page
    links = page.locator("nav a")
    assert links.count() >= 3
    for i in range(links.count()):
        target = links.nth(i).get_attribute("href")
        links.nth(i).click()
        box = page.locator(target).bounding_box()
        assert page.url.endswith(target)
        assert box["y"] < 900
        assert page.locator(f"{target} h2").inner_text() == links.nth(i).inner_text()
    assert find(page, "return [...document.querySelectorAll('a')].every(a => document.querySelector(a.hash))")


@pytest.mark.parametrize("name", PAGES)
def test_those_who_do_not_see_it_are_told_the_same(opened: Any, name: str) -> None:
    page = opened(name).page
    names = find(page, "return [...document.querySelectorAll('.chart, .mask')].map(each => each.ariaLabel)")
    assert len(names) >= 3
    assert all(len(each) > 20 for each in names)
    tables = (
        "return [...document.querySelectorAll('.chart')].every(c => c.closest('figure').querySelector('details table'))"
    )
    assert find(page, tables)
    assert find(page, "return [...document.images].every(each => each.hasAttribute('alt'))")
    assert find(page, "return [...document.querySelectorAll('svg')].every(each => each.ariaHidden === 'true')")
    assert find(
        page,
        "return [...document.querySelectorAll('section')].every(s => s.ariaLabel || s.getAttribute('aria-labelledby'))",
    )
    ids = find(page, "return [...document.querySelectorAll('[id]')].map(each => each.id)")
    assert len(ids) == len(set(ids))
    referred = find(
        page, "return [...document.querySelectorAll('[aria-labelledby]')].map(e => e.getAttribute('aria-labelledby'))"
    )
    assert set(referred) <= set(ids)
    levels = find(page, "return [...document.querySelectorAll('h1, h2, h3, h4')].map(each => Number(each.tagName[1]))")
    assert levels.count(1) == 1


@pytest.mark.parametrize("name", ["weights", "both"])
def test_tab_goes_through_it_in_order(opened: Any, name: str) -> None:
    page = opened(name).page
    focusable = """
        return [...document.querySelectorAll('a, summary, button, [tabindex="0"]')]
            .filter(each => each.checkVisibility()).map((each, i) => { each.dataset.order = i; return i; })
    """
    expected = find(page, focusable)
    reached: list[int] = []
    for _ in expected:
        page.keyboard.press("Tab")
        reached.append(int(find(page, "return document.activeElement.dataset.order ?? -1")))
    assert reached == expected


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_a_pointer_and_keys_read_a_picture(opened: Any, size: tuple[int, int]) -> None:
    one = opened("weights", size)
    page, chart = one.page, one.page.locator(".chart").first
    stops = json.loads(chart.locator("script").text_content())
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    for share in (0.3, 0.95):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + 0.5 * box["height"])
        at = share * float(chart.get_attribute("data-width"))
        nearest = min(stops, key=lambda stop: abs(stop[0] - at))
        assert page.locator("#tip").inner_text() == nearest[2]
    tip = page.locator("#tip").bounding_box()
    assert 0 <= tip["x"] <= size[0] - tip["width"]
    page.mouse.move(2, 2)
    assert page.locator("#tip").is_hidden()
    chart.focus()
    for key, index in (("End", -1), ("Home", 0), ("ArrowRight", 1), ("ArrowLeft", 0)):
        page.keyboard.press(key)
        assert page.locator("#said").inner_text() == stops[index][2]
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


@pytest.mark.parametrize("name", ["weights", "channels"])
def test_a_mask_tells_which_share_is_left_where(opened: Any, pages: dict[str, Path], name: str) -> None:
    page = opened(name).page
    details = json.loads(pages[name].with_name("details.json").read_text(encoding="utf-8"))["weights"]
    for number, weight in enumerate(list(details.values())[:2]):
        mask = page.locator(".mask").nth(number)
        mask.focus()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowDown")
        level = int(weight["mask"]["levels"][1][0], 16)
        assert page.locator("#said").inner_text().endswith(f": {round(100 * level / 15)} % left")
        assert page.locator("#said").inner_text().startswith("row")


def test_the_command_can_be_copied(opened: Any) -> None:
    one = opened("weights")
    one.page.locator(".copy").first.click()
    selected = find(one.page, "return getSelection().toString()")
    assert selected.strip() == one.page.locator(".code code").first.inner_text()
    assert one.page.locator("#said").inner_text() in ("Copied", "Selected")
