"""The portal in a real browser: it works offline, and its pages do what they are for."""

import json
import re

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.server.browser import browsing
from tests.serving import ROOT, Server

BUILT = ("sage", "sandbox")
"""The contracts on the front page, in their order."""
DOCUMENT = json.loads((ROOT / "generated/sage/openapi.json").read_bytes())
OPERATIONS = [
    operation
    for item in DOCUMENT["paths"].values()
    for operation in item.values()
    if "operationId" in operation
]


class Watched:
    """A page whose requests to elsewhere, errors and blocked parts are written down."""

    def __init__(self, context: BrowserContext, own: str) -> None:
        self.page: Page = context.new_page()
        self.faults: list[str] = []
        self.asked: list[str] = []
        self._own = own
        self.page.on("request", lambda request: self._requested(request.url))
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on(
            "console",
            lambda message: message.type == "error" and self.faults.append(message.text),
        )

    def _requested(self, url: str) -> None:
        self.asked.append(url)
        if not url.startswith((self._own, "data:", "blob:")):
            self.faults.append(f"request to {url}")

    def assert_clean(self) -> None:
        assert self.faults == []
        assert self.asked


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_front_page(live_server: Server, scheme: str) -> None:
    with browsing(color_scheme=scheme, viewport={"width": 1200, "height": 900}) as context:
        watched = Watched(context, live_server.url)
        page = watched.page
        page.goto(live_server.url)
        expect(page.get_by_role("heading", level=1)).to_have_text("Quartet")
        for name in BUILT:
            expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
        expect(page.get_by_role("link", name="ReDoc")).to_have_count(len(BUILT))
        assert readable(page) == []
        page.set_viewport_size({"width": 360, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        for place, name in enumerate(BUILT):
            page.goto(live_server.url)
            page.get_by_role("link", name="Swagger UI").nth(place).click()
            page.wait_for_url(f"**/{name}/docs")
            expect(page.locator(".opblock").first).to_be_visible()
        watched.assert_clean()


def test_swagger_ui_lists_everything_and_executes(live_server: Server) -> None:
    with browsing() as context:
        watched = Watched(context, live_server.url)
        page = watched.page
        page.goto(f"{live_server.url}/sage/docs")
        expect(page.locator(".opblock")).to_have_count(len(OPERATIONS))
        health = page.locator("#operations-System-system_check_health")
        health.locator(".opblock-summary-control").click()
        health.get_by_role("button", name="Try it out").click()
        with page.expect_response("**/sage/api/health") as answered:
            health.get_by_role("button", name="Execute").click()
        assert answered.value.status == 200
        shown = health.locator(
            ".live-responses-table td.response-col_status:not(.col_header)"
        ).first
        expect(shown).to_contain_text("200")
        expect(health.locator(".live-responses-table")).to_contain_text("healthy")
        watched.assert_clean()


def test_swagger_ui_sends_a_token_that_was_given(live_server: Server) -> None:
    with browsing() as context:
        watched = Watched(context, live_server.url)
        page = watched.page
        page.goto(f"{live_server.url}/sage/docs")
        page.get_by_role("button", name=re.compile("Authorize")).first.click()
        form = page.locator(".auth-container", has_text="bearer").first
        form.locator("input").fill("given-in-the-page")
        form.get_by_role("button", name="Apply credentials").click()
        page.locator(".dialog-ux .btn-done").first.click()
        session = page.locator("#operations-Auth-auth_get_session")
        session.locator(".opblock-summary-control").click()
        session.get_by_role("button", name="Try it out").click()
        with page.expect_request("**/sage/api/auth/session") as sent:
            session.get_by_role("button", name="Execute").click()
        assert sent.value.header_value("authorization") == "Bearer given-in-the-page"


def test_redoc_renders_every_group(live_server: Server) -> None:
    with browsing(viewport={"width": 1400, "height": 900}) as context:
        watched = Watched(context, live_server.url)
        page = watched.page
        page.goto(f"{live_server.url}/sage/redoc")
        for tag in DOCUMENT["tags"]:
            expect(page.get_by_text(tag["name"], exact=True).first).to_be_visible()
        page.get_by_text("Auth", exact=True).first.click()
        summary = next(o["summary"] for o in OPERATIONS if o["tags"] == ["Auth"])
        expect(page.get_by_text(summary).first).to_be_visible()
        watched.assert_clean()


def readable(page: Page) -> list[str]:
    """Texts whose contrast with their ground is below 4.5 : 1 (WCAG 2.2, 1.4.3)."""
    return page.evaluate(
        """() => {
          const channel = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
          const parts = text => text.match(/[\\d.]+/g).map(Number);
          const light = ([r, g, b]) =>
            0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
          const ground = element => {
            for (let at = element; at; at = at.parentElement) {
              const found = parts(getComputedStyle(at).backgroundColor);
              if (found.length === 3 || found[3] > 0) return found;
            }
            return [255, 255, 255];
          };
          const poor = [];
          for (const element of document.querySelectorAll("h1, h2, h3, p, li, a, code, strong")) {
            const pair = [parts(getComputedStyle(element).color), ground(element)].map(light);
            const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
            if (ratio < 4.5) poor.push(`${element.tagName}: ${ratio.toFixed(2)}`);
          }
          return poor;
        }"""
    )
