"""The console as people meet it: a real Chromium, a real server, and nothing slept for."""

import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from models import code_model, scale_model
from networks import own_address
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, expect, sync_playwright
from servers import RunningServer, Servers, working_beside

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TIMEOUT_MS = 30_000
TOKEN = "ein Schlüssel, den niemand errät"
NOTHING = re.compile("^(\N{EN DASH}|0|)$")
MARKUP = "<img src=x onerror=document.title='taken'>"
REFUSES_IN_MARKUP = f"""
from sagemaker_inference.errors import BaseInferenceToolkitError

def model_fn(model_dir):
    raise BaseInferenceToolkitError(418, "no, <b>never</b> {MARKUP}", "no")
"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on PATH"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        # Without Chromium's sandbox, which root may not use; the pages are ours.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Console:
    """The page, with what went wrong in it and where it sent requests."""

    page: Page
    problems: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(TIMEOUT_MS)
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.context.on("request", self._request)

    def _note(self, message: ConsoleMessage) -> None:
        # The browser says by itself that an answer was an error; which ones are is for the tests to say.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            self.problems.append(message.text)

    def _request(self, request: Request) -> None:
        if not request.url.startswith("data:"):
            self.asked.append(request.url)

    def row(self, name: str) -> Locator:
        return self.page.get_by_role("row").filter(has=self.page.get_by_text(name, exact=True))

    def button(self, name: str, within: Page | Locator | None = None) -> Locator:
        return (within or self.page).get_by_role("button", name=name, exact=True)

    def dialog(self, name: str) -> Locator:
        return self.page.get_by_role("dialog", name=name)


@contextmanager
def opened(browser: Browser, server: RunningServer, host: str = "127.0.0.1", **options: Any) -> Iterator[Console]:
    """The console in a browser of its own; when it closes, nothing went wrong in it and all it asked was the server."""
    origin = f"http://{host}:{server.port}"
    with browser.new_context(**options) as context:
        console = Console(context.new_page())
        console.page.goto(f"{origin}/console")
        yield console
    assert console.problems == []
    assert [url for url in console.asked if not url.startswith(f"{origin}/")] == []


@pytest.fixture
def console(browser: Browser, server: RunningServer) -> Iterator[Console]:
    with opened(browser, server) as console:
        yield console


@contextmanager
def under_load(server: RunningServer, name: str) -> Iterator[None]:
    def send(_: int, is_over: threading.Event) -> None:
        while not is_over.is_set():
            server.invoke(name, [[1, 2, 3]])

    with working_beside(send, 1):
        yield


def test_models_are_shown_with_their_states(console: Console) -> None:
    expect(console.row("iris")).to_contain_text("ready")
    expect(console.row("prices")).to_contain_text("onnx · shared process")
    expect(console.page.get_by_text("of 512 MiB")).to_be_visible()
    expect(console.page.locator("#health")).to_have_text("Healthy")


def test_charts_move_while_requests_flow(console: Console, server: RunningServer) -> None:
    page, row = console.page, console.row("iris")
    with under_load(server, "iris"):
        for figure in ("#rate-now", "#p50-now", "#p99-now", "#memory-held"):
            expect(page.locator(figure)).not_to_have_text(NOTHING)
        for chart in ("#rate-chart", "#latency-chart", "#memory-chart"):
            # A path from one point to at least one other.
            expect(page.locator(f"{chart} path.line").first).to_have_attribute("d", re.compile("^M.*L"))
        for cell in (".rate span", ".p50", ".p99"):
            expect(row.locator(cell)).not_to_have_text(NOTHING)
        expect(row.locator(".spark path.line")).to_have_attribute("d", re.compile("^M.*L"))
    expect(page.locator("#rate-now")).to_have_text("0")  # and they tell when requests end


def test_pointer_over_a_chart_tells_of_that_moment(console: Console) -> None:
    chart = console.page.locator("#rate-chart")
    expect(chart.locator("path.line").first).to_have_attribute("d", re.compile("L"))
    chart.hover(position={"x": 5, "y": 20})
    expect(console.page.locator("#rate-when")).to_have_text(re.compile(r"^\d+ s ago$"))


def test_model_is_loaded_pinned_unpinned_and_unloaded(console: Console, server: RunningServer, root: Path) -> None:
    folder = scale_model(root / "fresh")
    console.button("Load a model").click()
    form = console.dialog("Load a model")
    form.get_by_label("Name").fill("fresh")
    form.get_by_label("Folder or archive").fill(str(folder))
    form.get_by_label("Pin it").check()
    console.button("Load", form).click()
    expect(console.row("fresh")).to_contain_text("ready")
    expect(form).to_be_hidden()
    described = server.client.get("/models/fresh").json()
    assert (described["status"], described["pinned"]) == ("ready", True)

    pin = console.button("Pin fresh")
    for pinned in (False, True):
        pin.click()
        expect(pin).to_have_attribute("aria-pressed", str(pinned).lower())
        assert server.client.get("/models/fresh").json()["pinned"] is pinned

    question = console.dialog("Unload this model?")
    console.button("Unload fresh").click()
    console.button("Keep it", question).click()
    expect(question).to_be_hidden()
    assert server.client.get("/models/fresh").status_code == 200
    console.button("Unload fresh").click()
    console.button("Unload", question).click()
    expect(console.row("fresh")).to_have_count(0)
    assert server.client.get("/models/fresh").status_code == 404


@pytest.mark.skipif(not own_address(), reason="this machine has no address but its loopback")
def test_changes_from_another_machine_ask_for_the_token_once_and_send_it_from_then_on(
    browser: Browser, start_server: Servers, root: Path
) -> None:
    server = start_server(root, console="anywhere", host="0.0.0.0", admin_token=TOKEN)
    scale_model(root / "guarded")
    with opened(browser, server, own_address()) as console:
        expect(console.button("Admin token")).to_be_hidden()
        console.button("Load a model").click()
        form, asked = console.dialog("Load a model"), console.dialog("Admin token")
        form.get_by_label("Name").fill("guarded")
        form.get_by_label("Folder or archive").fill(str(root / "guarded"))
        console.button("Load", form).click()
        expect(asked.get_by_role("alert")).to_contain_text("401 UnauthorizedException")
        for token in ("something else", TOKEN):
            asked.get_by_label("Token").fill(token)
            console.button("Keep", asked).click()
        expect(console.row("guarded")).to_contain_text("ready")

        console.page.reload()  # the tab keeps it
        console.button("Pin guarded").click()
        expect(console.button("Pin guarded")).to_have_attribute("aria-pressed", "true")
        expect(asked).to_be_hidden()
        stored = "[sessionStorage, localStorage].map((one) => Object.values(one).length)"
        assert console.page.evaluate(stored) == [1, 0]

        console.button("Admin token").click()
        asked.get_by_label("Token").fill("")
        console.button("Keep", asked).click()
        console.button("Pin guarded").click()
        console.button("Cancel", asked).click()
        expect(console.page.locator("#notes")).to_contain_text("401 UnauthorizedException")
        assert server.client.get("/models/guarded").json()["pinned"] is True
    with opened(browser, server, own_address()) as console:  # another tab knows nothing of it
        expect(console.button("Admin token")).to_be_hidden()


def test_request_is_tried(console: Console) -> None:
    console.button("Try a request to prices").click()
    tried = console.dialog("Try a request")
    expect(tried.get_by_label("Model")).to_have_value("prices")
    tried.get_by_label("Body", exact=True).fill("1,2,3")
    tried.get_by_label("Content type").fill("text/csv")
    console.button("Send", tried).click()
    expect(tried.locator("#answer-status")).to_have_text("200 OK")
    expect(tried.get_by_label("Body of the answer")).to_have_text("[[2.0,4.0,6.0]]")
    expect(tried.locator("#answer-facts")).to_have_text(re.compile(r"ms|s · 15 bytes"))
    tried.get_by_text("Headers").click()
    expect(tried.locator("#answer-headers")).to_contain_text("content-type: application/json")


def test_error_of_a_model_is_shown_as_it_is(console: Console, server: RunningServer) -> None:
    said = server.client.post("/models/iris/invoke", content=b"nonsense", headers={"content-type": "application/json"})
    console.button("Try a request to iris").click()
    tried = console.dialog("Try a request")
    tried.get_by_label("Body", exact=True).fill("nonsense")
    console.button("Send", tried).click()
    expect(tried.locator("#answer-status")).to_have_text("400 Bad Request")
    expect(tried.get_by_label("Body of the answer")).to_have_text(said.text)


def test_error_of_a_load_is_shown_as_it_is(console: Console, server: RunningServer) -> None:
    said = server.load("elsewhere", Path("/etc")).json()
    console.button("Load a model").click()
    form = console.dialog("Load a model")
    form.get_by_label("Name").fill("elsewhere")
    form.get_by_label("Folder or archive").fill("/etc")
    console.button("Load", form).click()
    expect(form.get_by_role("alert")).to_have_text(f"{said['code']} {said['type']}: {said['message']}")


def test_markup_in_names_and_errors_is_text(console: Console, server: RunningServer, root: Path) -> None:
    assert server.load(MARKUP, scale_model(root / "plain")).status_code == 200
    server.load("refusing", code_model(root / "refusing", REFUSES_IN_MARKUP))
    expect(console.row("refusing").locator(".why")).to_have_text(f"no, <b>never</b> {MARKUP}")
    console.button(f"Try a request to {MARKUP}").click()
    tried = console.dialog("Try a request")
    expect(tried.get_by_label("Model")).to_have_value(MARKUP)
    console.button("Send", tried).click()
    expect(tried.locator("#answer-status")).to_have_text("200 OK")
    console.page.keyboard.press("Escape")
    for name in (MARKUP, "refusing"):
        console.button(f"Unload {name}").click()
        console.button("Unload", console.dialog("Unload this model?")).click()
        expect(console.page.get_by_text(f"{name} is unloaded.")).to_be_visible()
    assert console.page.locator("img, td b b").count() == 0
    assert console.page.title() == "Mooring console"


def test_reason_of_a_failed_model_is_shown(console: Console, server: RunningServer, root: Path) -> None:
    (root / "broken").mkdir()
    (root / "broken/model.onnx").write_bytes(b"not a model")
    server.load("broken", root / "broken")
    reason = server.client.get("/models/broken").json()["reason"]
    expect(console.row("broken").locator(".why")).to_have_text(reason)
    console.button("failed 1").click()
    expect(console.page.locator("#rows tr")).to_have_count(1)
    server.client.delete("/models/broken")
    expect(console.page.get_by_text("No model matches.")).to_be_visible()


def test_models_are_found_and_sorted_from_the_keyboard(console: Console) -> None:
    first = console.page.locator("#rows tr").first
    expect(first).to_contain_text("iris")
    console.button("Model").focus()
    console.page.keyboard.press("Enter")
    expect(console.page.get_by_role("columnheader", name="Model")).to_have_attribute("aria-sort", "descending")
    expect(first).to_contain_text("prices")
    console.page.get_by_role("searchbox").press_sequentially("IRI")
    expect(console.row("prices")).to_have_count(0)
    expect(console.row("iris")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 800, 1280])
def test_page_fits_its_window(browser: Browser, server: RunningServer, width: int, scheme: Any) -> None:
    with opened(browser, server, viewport={"width": width, "height": 800}, color_scheme=scheme) as console:
        expect(console.row("iris")).to_be_visible()
        assert console.page.evaluate("document.documentElement.scrollWidth") <= width
        brightness = console.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0]")
        assert (int(brightness) < 128) is (scheme == "dark")


def test_server_that_is_gone_is_told_of(browser: Browser, start_server: Servers, root: Path) -> None:
    server = start_server(root, console="local")
    with opened(browser, server) as console:
        expect(console.page.get_by_text("No model is loaded.")).to_be_visible()
        server.process.kill()
        expect(console.page.get_by_text("The server does not answer.")).to_be_visible()
