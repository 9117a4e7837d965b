"""The archive's static pages, opened from disk in a real browser: the list is filtered in the page."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import keep
from playwright.sync_api import Browser, Page, expect

from pulse import settings
from pulse.archive import manifest, site


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of 450 runs, one of them a report that was sent."""
    root = tmp_path_factory.mktemp("archive")
    # A search for 401 also finds a SHA-256 that begins so, and with one start all of them are the same each time.
    started = "2026-11-30T02:00:00+00:00"
    for number in range(449):
        day, outcome = f"2026-{9 + number // 200:02}-{1 + number % 28:02}", "failed" if number == 100 else "succeeded"
        keep(root, f"etl/{day}/run_{number}/load.1.ipynb", outcome, started, rows=number)
    report = "daily_report/2026-08-01/run/daily_report.1.ipynb"
    keep(root, report, users=13_806, ctr=0.1977345, numbers=[["DAU", "13,806"]])
    sent = {"chat": "-1001234567890", "state": "sent", "did": "sent", "ref": "a1b2", "message_id": 4711}
    entry = {"what": "delivered", "path": report, "report": "daily_report", "event_date": "2026-08-01"}
    manifest.append(root, {**entry, "deliveries": [sent]})
    folder = tmp_path_factory.mktemp("pages") / "site"
    site.write(root, folder, settings.load())
    return folder


@pytest.fixture
def page(browser: Browser, folder: Path) -> Iterator[Page]:
    page = browser.new_page()
    page.goto((folder / "index.html").as_uri())
    yield page
    page.close()


def count(page: Page, runs: int) -> None:
    page.locator("#count", has_text=f"{runs} run").wait_for(timeout=10_000)


def test_the_list_has_pages(page: Page, folder: Path) -> None:
    count(page, 450)
    expect(page.locator(".run")).to_have_count(200)
    # By key: a group gets its height when it is first seen, which can move the link away from under a mouse.
    for number in (2, 3):
        page.get_by_role("link", name="earlier").press("Enter")
        expect(page.get_by_text(f"page {number} of 3")).to_be_visible()  # else the next click is still on this page
    expect(page.locator(".run")).to_have_count(50)
    assert max(path.stat().st_size for path in folder.glob("*.html")) < 400_000


@pytest.mark.parametrize(
    "asked",
    ["13,806", "13806", "0,1977", "-1001234567890", "DAILY_report"],
)
def test_search_works_from_any_page(page: Page, asked: str) -> None:
    page.keyboard.press("/")
    page.keyboard.type(asked)
    count(page, 1)
    page.locator(".run a").click()
    expect(page.get_by_text("0.198").first).to_be_visible()
    page.keyboard.press("/")  # back to the list's search field
    page.wait_for_url("**/index.html#find")
    assert page.evaluate("document.activeElement.id") == "find"


def test_filters_cover_all_pages_and_can_be_cleared(page: Page) -> None:
    page.get_by_label("Outcome").select_option("failed")
    count(page, 1)
    page.get_by_label("Outcome").select_option("not succeeded")
    count(page, 1)
    page.get_by_label("Outcome").select_option("")
    count(page, 450)
    page.get_by_label("Notebook").select_option("load")
    count(page, 449)
    expect(page.locator(".run")).to_have_count(200)
    page.get_by_role("button", name="more").press("Enter")
    page.wait_for_function("document.querySelectorAll('.run').length === 400")
    page.get_by_label("Event date from").fill("2026-11-01")
    count(page, 49)
    page.get_by_label("Find").fill("succeeded rows 8888")
    count(page, 0)
    page.get_by_label("Find").fill("succeeded rows 401")
    count(page, 1)
    page.get_by_label("Find").fill("***")
    count(page, 0)


def test_the_outcomes_in_the_list_are_aligned(page: Page) -> None:
    count(page, 450)
    lefts = page.locator(".run .outcome").evaluate_all("all => all.map(each => each.getBoundingClientRect().left)")
    assert len(lefts) == 200
    assert len(set(lefts)) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_follow_the_readers_light_or_dark_scheme(browser: Browser, folder: Path, scheme: str) -> None:
    colors = """element => ["backgroundColor", "color"].map((which) => {
      const [red, green, blue] = getComputedStyle(element)[which].match(/\\d+/g).map(Number);
      return (red + green + blue) / 3;
    })"""
    with browser.new_context(color_scheme="dark" if scheme == "dark" else "light") as context:
        page = context.new_page()
        page.goto((folder / "index.html").as_uri())
        seen = [page.locator(name).first.evaluate(colors) for name in ("body", ".filter", ".group")]
        page.locator(".run a").first.click()
        expect(page.get_by_text("What it is for.")).to_be_visible()
        seen.append(page.locator("body").evaluate(colors))
    for behind, words in seen:
        darker, lighter = (behind, words) if scheme == "dark" else (words, behind)
        assert darker < 90
        assert lighter > 170
