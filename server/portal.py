"""The portal: what runs here, and each contract's Swagger UI, ReDoc and OpenAPI document.

Everything comes from this server (server/portal_assets, VENDORED.md), so it works without a
network; each page's Content-Security-Policy allows that and nothing else. Files are read when they
are asked for: an idle server keeps none of them in memory.
"""

import gzip
import html
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from server.lane.contract import Contract
from server.pages import (
    FOR_EVER,
    HTML,
    JSON,
    NO_STORE,
    NOTHING_ELSE,
    REVALIDATE,
    TEXT,
    Check,
    Fields,
    Headers,
    Kept,
    Page,
    Render,
    accepted_codings,
    etag,
    has_tag,
    page,
)

ASSETS = Path(__file__).parent / "portal_assets"
SWAGGER = "swagger-ui-5.35.0"
REDOC = "redoc-3.0.1"
MEDIA = {".js": b"text/javascript; charset=utf-8", ".css": b"text/css; charset=utf-8"}
SVG = b"image/svg+xml"

_OWN = NOTHING_ELSE + b"; style-src 'self'; img-src 'self'"
_SWAGGER = _OWN + b" data:; script-src 'self'; connect-src 'self'; style-src-attr 'unsafe-inline'"
# ReDoc writes its style sheets from its script, under names that change with each build.
_REDOC = (
    NOTHING_ELSE + b"; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src data:"
    b"; script-src 'self'; worker-src 'self' blob:; connect-src 'self'"
)

TITLES = {
    "sage": "Agents, streaming chat that survives a disconnect, knowledge bases, tools and skills",
    "sandbox": "Task sessions in a sandbox, tools, MCP and A2A servers, skills",
    "assistant": "Spawned agents with events to poll, hooks, pipelines, a vault",
    "fleet": "Agents, tasks, workflows, workers, approvals, cost",
}
"""What each contract is, in a line."""


def pages(
    contracts: Mapping[str, Contract],
    *,
    generated: Path,
    base_url: str,
    root_path: str,
    is_stopping: Callable[[], bool],
    check: Check,
    metrics: ASGIApp,
) -> dict[str, ASGIApp]:
    """Paths outside of the contracts, for server.dispatch: exact, or prefixes that end in `/`.

    `generated` holds a folder per contract; `check` returns when the database answers and raises
    when it does not.
    """
    root = root_path.rstrip("/")
    made: dict[str, ASGIApp] = {
        "/": page(_front(contracts, base_url, root, is_stopping, check)),
        "/ready": page(_ready(is_stopping)),
        "/metrics": metrics,
    }
    for name in contracts:
        made[f"/{name}/docs"] = page(_swagger(name, root))
        made[f"/{name}/redoc"] = page(_redoc(name, root))
        made[f"/{name}/openapi.json"] = page(
            _moved_document(contracts[name].document, root)
            if root
            else Kept(generated / name / "openapi.json", JSON, REVALIDATE).render
        )
        if (generated / name / "asyncapi.json").exists():
            kept = Kept(generated / name / "asyncapi.json", JSON, REVALIDATE)
            made[f"/{name}/asyncapi.json"] = page(kept.render)
    made.update(_assets())
    return made


def _assets() -> dict[str, ASGIApp]:
    """`/portal/…`: the versioned folders are kept by browsers for ever, our own are asked about."""
    made = {}
    for folder, caching in ((ASSETS / SWAGGER, FOR_EVER), (ASSETS / REDOC, FOR_EVER)):
        for path in folder.iterdir():
            if (media_type := MEDIA.get(path.suffix)) is not None:
                kept = Kept(path, media_type, caching)
                made[f"/portal/{folder.name}/{path.name}"] = page(kept.render)
    for path in ASSETS.iterdir():
        if (media_type := MEDIA.get(path.suffix)) is not None:
            made[f"/portal/{path.name}"] = page(Kept(path, media_type, REVALIDATE).render)
    mark = Kept(ASSETS / "quartet.svg", SVG, REVALIDATE).render
    made["/portal/quartet.svg"] = made["/favicon.ico"] = page(mark)
    return made


def _moved_document(document: dict[str, Any], root: str) -> Render:
    """The document behind a proxy that serves us under a path: its servers say so."""

    async def render(headers: Headers) -> Page:
        servers = [
            {**one, "url": f"{root}/{one['url'].lstrip('/')}"} for one in document["servers"]
        ]
        body = json.dumps({**document, "servers": servers}, ensure_ascii=False).encode()
        packed = b"gzip" in accepted_codings(headers.get(b"accept-encoding", b""))
        if packed:
            body = gzip.compress(body, 6, mtime=0)
        answered: Fields = (REVALIDATE, (b"vary", b"accept-encoding"), (b"etag", etag(body)))
        if has_tag(headers, etag(body)):
            return Page(304, b"", b"", answered)
        if packed:
            answered = (*answered, (b"content-encoding", b"gzip"))
        return Page(200, JSON, body, answered)

    return render


def _ready(is_stopping: Callable[[], bool]) -> Render:
    """200 while requests are taken, 503 from the moment the process is told to stop."""

    async def render(_: Headers) -> Page:
        if is_stopping():
            return Page(503, TEXT, b"stopping\n", (NO_STORE, (b"retry-after", b"5")))
        return Page(200, TEXT, b"ready\n")

    return render


# --- HTML ---------------------------------------------------------------------------------------


def document(title: str, styles: list[str], body: str, root: str) -> bytes:
    """A whole page in English: its title, style sheets of /portal and the HTML of its body."""
    sheets = "".join(f'<link rel="stylesheet" href="{root}/portal/{one}">' for one in styles)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{html.escape(title)}</title><link rel="icon" href="{root}/portal/quartet.svg">'
        f"{sheets}</head><body>{body}</body></html>"
    ).encode()


def _bar(name: str, here: str, root: str) -> str:
    """The line above a viewer: where one is, and the ways out."""
    links = {"docs": "Swagger UI", "redoc": "ReDoc", "openapi.json": "OpenAPI JSON"}
    others = " ".join(
        f'<a href="{root}/{name}/{path}">{text}</a>' for path, text in links.items() if path != here
    )
    return (
        f'<header class="bar"><a href="{root}/">Quartet</a> '
        f"<strong>{html.escape(name)}</strong> {others}</header>"
    )


def _swagger(name: str, root: str) -> Render:
    body = (
        f'{_bar(name, "docs", root)}<main id="viewer" data-document="{root}/{name}/openapi.json">'
        f'</main><script src="{root}/portal/{SWAGGER}/swagger-ui-bundle.js"></script>'
        f'<script src="{root}/portal/swagger.js"></script>'
    )
    made = document(f"{name} · Swagger UI", [f"{SWAGGER}/swagger-ui.css", "viewer.css"], body, root)

    async def render(_: Headers) -> Page:
        return Page(200, HTML, made, (REVALIDATE,), _SWAGGER)

    return render


def _redoc(name: str, root: str) -> Render:
    body = (
        f'{_bar(name, "redoc", root)}<main id="viewer" data-document="{root}/{name}/openapi.json"'
        f' data-viewer="{root}/portal/{REDOC}/redoc.standalone.js"></main>'
        f'<script type="module" src="{root}/portal/redoc.js"></script>'
    )
    made = document(f"{name} · ReDoc", ["viewer.css"], body, root)

    async def render(_: Headers) -> Page:
        return Page(200, HTML, made, (REVALIDATE,), _REDOC)

    return render


def _front(
    contracts: Mapping[str, Contract],
    base_url: str,
    root: str,
    is_stopping: Callable[[], bool],
    check: Check,
) -> Render:
    front = (ASSETS / "front.html").read_text()
    start = (ASSETS / "quickstart.sh").read_text().replace("http://127.0.0.1:8000", base_url)
    probes = [("/ready", "whether this process takes requests")]
    if "sage" in contracts:
        probes.append(("/sage/api/health", "whether the database answers"))
    probes.append(("/metrics", "counters for Prometheus"))
    listed = "".join(f'<li><a href="{root}{path}">{path}</a> {said}</li>' for path, said in probes)

    async def render(_: Headers) -> Page:
        try:
            await check()
            database = '<li class="good">Database: <strong>answers</strong></li>'
        except Exception:
            database = '<li class="bad">Database: <strong>does not answer</strong></li>'
        server = (
            '<li class="bad">Server: <strong>stopping</strong></li>'
            if is_stopping()
            else '<li class="good">Server: <strong>ready</strong></li>'
        )
        # Operations are compiled after the pages are made.
        cards = "".join(_card(contract, root) for contract in contracts.values())
        body = front.format(
            root=root, state=server + database, cards=cards, start=html.escape(start), probes=listed
        )
        return Page(200, HTML, document("Quartet", ["portal.css"], body, root), (NO_STORE,), _OWN)

    return render


def _card(contract: Contract, root: str) -> str:
    name = contract.name
    asyncapi = f'<a href="{root}/{name}/asyncapi.json">AsyncAPI JSON</a>'
    return (
        f"<li><h3>{html.escape(name)}</h3><p>{html.escape(TITLES[name])}.</p>"
        f'<p class="at">{len(contract.operations)} operations at <code>{root}/{name}</code></p>'
        f'<p class="links"><a href="{root}/{name}/docs">Swagger UI</a>'
        f'<a href="{root}/{name}/redoc">ReDoc</a>'
        f'<a href="{root}/{name}/openapi.json">OpenAPI JSON</a>'
        f"{asyncapi if contract.websockets else ''}</p></li>"
    )
