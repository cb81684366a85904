"""The page in a real browser: no error, no request, no serious finding of axe-core."""

import pathlib
import shutil

import pytest

from jaxres.report import page, record

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


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 1200), ("dark", 360)])
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
