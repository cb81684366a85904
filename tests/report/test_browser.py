"""The page in a real browser: no error, no request, no serious finding of axe-core."""

import copy
import pathlib
import shutil

import pytest

from jaxres.report import charts, page, record
from tests.marked import slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser is installed: none of {', '.join(BROWSERS)}")
    with sync_api.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def written(runs: list[pathlib.Path], tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    found = [record.read(each) for each in runs]
    rows = [{"value": value, "accuracy": accuracy} for value, accuracy in (("8", 0.1), ("24", 1.0))]
    for each in found:
        command = f"jaxres evaluate {each['run_dir']} --sweep data.digit_side 8 24"
        each["sweep"] = {"sweep": "data.digit_side", "results": rows, "command": command}
    page.write_runs(found, path)
    return path


@pytest.mark.parametrize(
    ("scheme", "width"),
    [("light", 1280), slow("dark", 1280), ("dark", 390)],
)
def test_the_page_opens_cleanly(browser, written: pathlib.Path, scheme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is missing")
    said: list[str] = []
    asked: list[str] = []
    opened = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 800})
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(written.as_uri())
    assert opened.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    findings = axe.Axe().run(opened).response["violations"]
    serious = [each for each in findings if each["impact"] in ("serious", "critical")]
    opened.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [written.as_uri()]
    assert serious == []


def test_many_systems_of_long_names_fit_a_phone(
    browser, runs: list[pathlib.Path], tmp_path: pathlib.Path
) -> None:
    run = record.read(runs[0])
    rest = "of_a_study_with_a_long_name/and_many_rows/seed0"
    found = [copy.deepcopy(run) | {"run_dir": f"runs{k}/{rest}"} for k in range(15)]
    page.write_runs(found, tmp_path / "report.html")
    opened = browser.new_page(viewport={"width": 390, "height": 800})
    opened.goto((tmp_path / "report.html").as_uri())
    width = opened.evaluate("document.documentElement.scrollWidth")
    names = opened.evaluate(
        "[...document.querySelectorAll('tbody th')].map(name => name.getBoundingClientRect().width)"
    )
    captions = opened.locator(".charts figcaption").all_inner_texts()
    opened.close()
    assert width <= 390
    assert max(names) < 390 / 2  # beside a name there is a number to see
    assert len(captions) == 3
    assert all("the first 12 of 15 are drawn, 3 left out" in each for each in captions)


TEXTS_AND_AXES = """
    () => [...document.querySelectorAll('text'), document.querySelector('#patch_2')]
        .map(each => each.getBoundingClientRect())
        .map(box => [box.left, box.top, box.right, box.bottom])
"""


def test_no_word_of_a_chart_covers_a_line_or_another_word(browser) -> None:
    points = {
        f"one digit, network {k} (to start from)": [(1.0, k / 15), (2.0, 1 - k / 15), (3.0, 0.9)]
        for k in range(15)
    }
    drawn = charts.curves(points, x="epoch", y="accuracy", best="highest")
    opened = browser.new_page(viewport={"width": 390, "height": 800})
    opened.set_content(f"<style>svg {{ width: 358px; height: auto }}</style>{drawn}")
    *texts, axes = opened.evaluate(TEXTS_AND_AXES)
    opened.close()
    assert len(texts) > 2 * charts.MOST
    for k, box in enumerate(texts):
        assert min(box[2] - box[0], box[3] - box[1]) >= 5  # a digit's width
        assert box[0] >= 0
        assert box[2] <= 390
        for other in [axes, *texts[:k]]:
            across = min(box[2], other[2]) - max(box[0], other[0])
            down = min(box[3], other[3]) - max(box[1], other[1])
            assert min(across, down) < 1


def test_everything_can_be_reached_by_keyboard(browser, written: pathlib.Path) -> None:
    opened = browser.new_page()
    opened.goto(written.as_uri())
    wanted = opened.evaluate("document.querySelectorAll('summary, [tabindex]').length")
    reached = set()
    for _ in range(2 * wanted):
        opened.keyboard.press("Tab")
        reached.add(opened.evaluate("document.activeElement.outerHTML.slice(0, 80)"))
    summary = opened.evaluate("document.querySelector('details').open")
    opened.locator("summary").first.focus()
    opened.keyboard.press("Enter")
    assert opened.evaluate("document.querySelector('details').open") != summary
    opened.close()
    assert any("summary" in each for each in reached)
    assert any("Confusion matrix" in each for each in reached)
    assert any("Table of accuracies" in each for each in reached)
