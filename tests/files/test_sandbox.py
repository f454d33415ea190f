"""sandbox, /api/files, over a real server (document 002, "File Module")."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.sandbox_people import SETTINGS, People, Person, people_of
from tests.serving import Server, serving

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20
FILE_MAX = 3 * 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    given = {**SETTINGS, "FILE_MAX": str(FILE_MAX)}
    with serving(tmp_path_factory.mktemp("files") / "data", given=given) as made:
        yield made


@pytest.fixture
def people(server: Server) -> Iterator[People]:
    with people_of(server) as made:
        yield made


def uploaded(person: Person, name: str, content: bytes, media_type: str = "") -> httpx.Response:
    part = (name, content, media_type) if media_type else (name, content)
    return person.client.post("/api/files", files={"file": part})


def test_a_file_comes_back_as_it_went(people: People) -> None:
    owner = people.user()
    content = bytes(range(256)) * 8000
    info = uploaded(owner, "报告 2026.CSV", content, "text/csv").json()["data"]
    assert info == {
        "id": info["id"],
        "filename": "报告 2026.CSV",
        "filepath": "",
        "key": f"files/{info['id']}",
        "extension": ".csv",
        "mime_type": "text/csv",
        "size": len(content),
    }
    assert owner.data("GET", f"/api/files/{info['id']}") == info
    answer = owner.client.get(f"/api/files/{info['id']}/download")
    assert answer.content == content
    assert answer.headers["content-type"] == "text/csv"
    assert answer.headers["content-length"] == str(len(content))
    disposition = answer.headers["content-disposition"]
    assert disposition.startswith("attachment; ")
    assert disposition.endswith("filename*=utf-8''%E6%8A%A5%E5%91%8A%202026.CSV")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("name", "content", "said", "kept"),
    [
        ("a.png", PNG, "image/png", "image/png"),
        ("a.png", b"<svg onload=alert(1)>", "image/png", "application/octet-stream"),
        ("page.html", b"<script>", "text/html", "text/html"),
        ("a.json", b"{}", "", "application/json"),
        ("a.bin", PNG, "application/octet-stream", "image/png"),
        ("a.unknown", b"x", "no type at all", "application/octet-stream"),
        ("a.txt", b"", "text/plain; charset=utf-8", "text/plain"),
        ("a.txt", b"x", "text/plain\tx", "text/plain"),
    ],
)
def test_the_media_type_is_the_uploaders_or_the_names(
    people: People, name: str, content: bytes, said: str, kept: str
) -> None:
    owner = people.user()
    info = uploaded(owner, name, content, said).json()["data"]
    assert info["mime_type"] == kept
    answer = owner.client.get(f"/api/files/{info['id']}/download")
    assert answer.headers["content-type"] == kept
    assert answer.headers["content-disposition"].startswith("attachment; ")


@pytest.mark.parametrize(
    ("name", "kept", "extension"),
    [
        ("../../etc/passwd", "_.._etc_passwd", ""),
        ("a/b\\c.TXT", "a_b_c.TXT", ".txt"),
        (".bashrc", "bashrc", ""),
        ("…", "…", ""),
    ],
)
def test_a_name_is_only_text(people: People, name: str, kept: str, extension: str) -> None:
    info = uploaded(people.user(), name, b"x").json()["data"]
    assert (info["filename"], info["extension"]) == (kept, extension)
    assert info["key"] == f"files/{info['id']}"


def test_strangers_are_told_403_and_administrators_served(people: People) -> None:
    owner, stranger, admin = people.user(), people.user(), people.admin()
    path = f"/api/files/{uploaded(owner, 'a.txt', b'mine').json()['data']['id']}"
    for method, where in (("GET", path), ("GET", f"{path}/download"), ("DELETE", path)):
        refused = stranger.client.request(method, where)
        assert (refused.status_code, refused.json()["code"]) == (403, 403)
        assert refused.json()["data"] == {}
        missing = stranger.client.request(method, where.replace(path, "/api/files/nothing"))
        assert (missing.status_code, missing.json()["data"]) == (404, {})
        assert httpx.request(method, f"{people.server.url}/sandbox{where}").status_code == 401
    assert admin.client.get(f"{path}/download").content == b"mine"
    assert admin.data("DELETE", path) is None
    assert owner.client.get(path).status_code == 404


def test_what_is_deleted_is_gone_from_the_disk(people: People) -> None:
    owner = people.user()
    info = uploaded(owner, "a.txt", b"mine").json()["data"]
    stored: Path = people.server.data / "objects" / info["key"]
    assert stored.read_bytes() == b"mine"
    assert owner.data("DELETE", f"/api/files/{info['id']}") is None
    assert not stored.exists()
    assert owner.client.delete(f"/api/files/{info['id']}").status_code == 404


def test_a_file_published_by_sage_is_a_file_here(people: People) -> None:
    owner = people.user()
    url = owner.client.post(
        f"{people.server.url}/sage/api/oss/upload", files={"file": ("a.png", PNG)}
    ).json()["data"]["url"]
    assert owner.client.get(url).content == PNG
    private = uploaded(owner, "b.txt", b"text", "text/html").json()["data"]
    assert owner.client.get(f"{people.server.url}/oss/{private['id']}/b.txt").status_code == 404


def test_versions_are_asked_about(people: People) -> None:
    owner = people.user()
    path = f"/api/files/{uploaded(owner, 'a.txt', b'x').json()['data']['id']}"
    tag = owner.client.get(path).headers["etag"]
    kept = owner.client.get(path, headers={"if-none-match": tag})
    assert (kept.status_code, kept.content) == (304, b"")
    other = owner.client.delete(path, headers={"if-match": '"7"'})
    assert (other.status_code, other.json()["code"]) == (412, 412)
    assert owner.client.delete(path, headers={"if-match": tag}).status_code == 200


def test_an_upload_is_a_form_within_its_limits(people: People) -> None:
    owner = people.user()
    as_json = owner.client.post("/api/files", json={"file": "/etc/passwd"})
    assert as_json.status_code == 415
    without = owner.client.post("/api/files", files={"other": ("a", b"x")})
    assert without.status_code == 422
    field = owner.client.post("/api/files", data={"file": "x"}, files={"f": ("a", b"")})
    assert field.status_code == 422
    over = uploaded(owner, "a.bin", b"x" * (FILE_MAX + 1))
    assert (over.status_code, over.json()["code"]) == (413, 413)
    whole = uploaded(owner, "a.bin", b"x" * FILE_MAX)
    assert whole.json()["data"]["size"] == FILE_MAX


def test_a_retry_keeps_one_file(people: People) -> None:
    owner = people.user()
    request = {
        "url": "/api/files",
        "headers": {"idempotency-key": "upload-1"},
        "files": {"file": ("a.txt", b"once")},
    }
    first, second = owner.client.post(**request), owner.client.post(**request)
    assert first.json() == second.json()
    assert second.headers["idempotency-replayed"] == "true"


def test_requests_are_counted(tmp_path: Path) -> None:
    """120 reads and 60 writes a minute as shipped; here 3 and 2, each account by itself."""
    given = {**SETTINGS, "READ_RATE": "3/minute", "WRITE_RATE": "2/minute"}
    with serving(tmp_path / "data", given=given) as server, people_of(server) as people:
        owner, other = people.user(), people.user()
        assert [owner.client.get("/api/files/x").status_code for _ in range(3)] == [404] * 3
        refused = owner.client.get("/api/files/x")
        assert refused.status_code == 429
        data = refused.json()["data"]
        assert data == {
            "retry_after": int(refused.headers["retry-after"]),
            "limit": 3,
            "window_seconds": 60,
            "bucket": "read",
        }
        assert 1 <= data["retry_after"] <= 60
        assert [uploaded(owner, "a", b"x").status_code for _ in range(3)] == [200, 200, 429]
        assert other.client.get("/api/files/x").status_code == 404
        assert owner.client.get("/api/auth/me").status_code == 200
        assert json.loads(refused.text)["code"] == 429
