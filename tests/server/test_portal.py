"""The portal's pages, documents and assets over HTTP."""

import gzip
import json
import re
from pathlib import Path

import brotli
import pytest

from tests.server.http import ask
from tests.serving import ROOT, Server, serving

PAGES = ("/", "/sage/docs", "/sage/redoc", "/sandbox/docs", "/sandbox/redoc", "/docs", "/redoc")
DOCUMENT = (ROOT / "generated/sage/openapi.json").read_bytes()


@pytest.mark.parametrize("path", PAGES)
def test_pages_load_from_this_server_alone(live_server: Server, path: str) -> None:
    answer = ask(live_server.url + path)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; base-uri 'none'; form-action 'none'")
    assert "frame-ancestors 'none'" in policy
    scripts = re.search(r"script-src ([^;]*)", policy)
    assert (scripts[1] if scripts else "'self'") == "'self'"
    text = answer.body.decode()
    named = re.findall(r'(?:src|href|data-\w+)="([^"]*)"', text)
    assert named
    for link in named:
        assert link.startswith("/"), link
        assert ask(live_server.url + link).status == 200, link
    assert not re.search(r"<script(?![^>]*\bsrc=)", text), "an inline script"


def test_front_page_says_what_runs_here(live_server: Server) -> None:
    text = ask(f"{live_server.url}/").body.decode()
    for name in ("sage", "sandbox"):
        document = (ROOT / f"generated/{name}/openapi.json").read_bytes()
        operations = sum("operationId" in operation for operation in operations_of(document))
        assert f"{operations} operations at <code>/{name}</code>" in text
    assert text.count("/asyncapi.json") == 1
    channels = ask(f"{live_server.url}/sandbox/asyncapi.json").json()["channels"]
    assert "session_open_vnc" in channels
    assert ask(f"{live_server.url}/sage/asyncapi.json").status == 404
    assert "embedded/smollm2" in text
    assert "a small one" in text
    assert f"AT={live_server.url} " in text
    assert "Database: <strong>answers</strong>" in text
    assert str(live_server.data) not in text


def operations_of(document: bytes) -> list[dict[str, object]]:
    paths = json.loads(document)["paths"].values()
    return [operation for item in paths for operation in item.values()]


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("", ""),
        ("gzip", "gzip"),
        ("gzip, deflate, br", "br"),
        ("br;q=0, gzip", "gzip"),
        ("br;q=0.0, gzip;q=0", ""),
        ("identity", ""),
        ("x-br", ""),
    ],
)
def test_document_is_the_generated_one(live_server: Server, accepted: str, coding: str) -> None:
    url = f"{live_server.url}/sage/openapi.json"
    answer = ask(url, headers={"Accept-Encoding": accepted})
    assert answer.headers.get("content-encoding", "") == coding
    assert answer.headers["vary"] == "accept-encoding"
    unpack = {"br": brotli.decompress, "gzip": gzip.decompress, "": bytes}[coding]
    assert unpack(answer.body) == DOCUMENT
    tag = answer.headers["etag"]
    again = ask(url, headers={"Accept-Encoding": accepted, "If-None-Match": f'"x", W/{tag}'})
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    other = ask(url, headers={"Accept-Encoding": accepted, "If-None-Match": '"other"'})
    assert other.status == 200


def test_encodings_have_tags_of_their_own(live_server: Server) -> None:
    url = f"{live_server.url}/sage/openapi.json"
    tags = {ask(url, headers={"Accept-Encoding": c}).headers["etag"] for c in ("br", "gzip", "")}
    assert len(tags) == 3


def test_assets_are_kept_for_ever_only_under_their_version(live_server: Server) -> None:
    versioned = ask(f"{live_server.url}/portal/redoc-3.0.1/redoc.standalone.js")
    assert versioned.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert versioned.headers["content-type"] == "text/javascript; charset=utf-8"
    assert versioned.headers["x-content-type-options"] == "nosniff"
    own = ask(f"{live_server.url}/portal/portal.css")
    assert own.headers["cache-control"] == "no-cache"
    assert own.headers["etag"]


def test_vendored_files_are_the_named_versions() -> None:
    record = (ROOT / "server/portal_assets/VENDORED.md").read_text()
    for folder in (ROOT / "server/portal_assets").iterdir():
        if folder.is_dir():
            name, _, version = folder.name.rpartition("-")
            assert re.search(rf"\| {name}(-dist)? \| {re.escape(version)} \|", record)
            assert (folder / "LICENSE").exists()
            for packed in folder.glob("*.gz"):
                assert gzip.decompress(packed.read_bytes()) == packed.with_suffix("").read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "/portal/",
        "/portal/../settings.py",
        "/portal/%2e%2e/portal.py",
        "/portal/VENDORED.md",
        "/portal/front.html",
        "/portal/redoc-3.0.1/",
        "/portal/redoc-3.0.1/redoc.standalone.js.gz",
        "/fleet/docs",
    ],
)
def test_nothing_else_is_served(live_server: Server, path: str) -> None:
    answer = ask(live_server.url + path)
    assert answer.status == 404
    assert answer.json()["code"] == 404


@pytest.mark.parametrize("page", ["docs", "redoc", "openapi.json"])
def test_the_main_ports_root_has_the_sandbox_contracts_pages(
    live_server: Server, page: str
) -> None:
    """As its document says; the assistant's port has none of them there (rules, "Routing")."""
    own = ask(f"{live_server.url}/sandbox/{page}")
    for path in (f"/{page}", f"/{page}/"):
        answer = ask(live_server.url + path)
        assert (answer.status, answer.body) == (200, own.body)
        assert answer.headers["content-type"] == own.headers["content-type"]
    assert b"sandbox" in own.body
    assert ask(f"{live_server.assistant_url}/{page}").status == 404
    assert ask(f"{live_server.assistant_url}/sandbox/{page}").body == own.body


def test_pages_take_only_reads(live_server: Server) -> None:
    for path in ("/", "/ready", "/metrics", "/sage/openapi.json"):
        head = ask(live_server.url + path, "HEAD")
        assert (head.status, head.body) == (200, b"")
        refused = ask(live_server.url + path, "POST", {})
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        assert ask(live_server.url + path, "OPTIONS").status == 204


def test_request_ids_are_echoed(live_server: Server) -> None:
    answer = ask(f"{live_server.url}/ready", headers={"X-Request-ID": "of-mine"})
    assert answer.headers["x-request-id"] == "of-mine"
    assert ask(f"{live_server.url}/ready").headers["x-request-id"] not in ("", "of-mine")


def test_behind_a_proxy_links_and_servers_carry_its_path(tmp_path: Path) -> None:
    with serving(tmp_path / "data", given={"ROOT_PATH": "/ai/"}) as server:
        for base in (server.url, f"{server.url}/ai"):
            text = ask(f"{base}/").body.decode()
            assert 'href="/ai/sage/docs"' in text
            assert 'href="/sage/docs"' not in text
            answer = ask(f"{base}/sage/openapi.json")
            assert [s["url"] for s in answer.json()["servers"]] == ["/ai/sage", "/ai/"]
            tag = answer.headers["etag"]
            again = ask(f"{base}/sage/openapi.json", headers={"If-None-Match": tag})
            assert again.status == 304
            packed = ask(f"{base}/sage/openapi.json", headers={"Accept-Encoding": "gzip"})
            assert gzip.decompress(packed.body) == answer.body
