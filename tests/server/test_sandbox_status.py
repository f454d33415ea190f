"""sandbox, /api/status, over real servers, with objects in a directory and in S3 (document 002,
"Status Module"; security 37)."""

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from tests.sandbox_people import SETTINGS, People, people_of
from tests.serving import Server, serving

CONTENT = b"a,b\n1,2\n"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The endpoint of a real HTTP server that speaks S3, with one bucket."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    httpx.put(f"{endpoint}/quartet").raise_for_status()
    yield endpoint
    server.stop()


@pytest.fixture(scope="module")
def in_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("status") / "data", given=SETTINGS) as made:
        yield made


@pytest.fixture(scope="module")
def in_s3(tmp_path_factory: pytest.TempPathFactory, s3: str) -> Iterator[Server]:
    given = {
        **SETTINGS,
        "OBJECT_STORE_URL": f"s3://quartet/pre?endpoint={s3}&region=us-east-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    with serving(tmp_path_factory.mktemp("status") / "data", given=given) as made:
        yield made


@pytest.fixture(params=["in_directory", "in_s3"])
def people(request: pytest.FixtureRequest) -> Iterator[People]:
    with people_of(request.getfixturevalue(request.param)) as made:
        yield made


def test_every_service_is_named_to_anyone(people: People) -> None:
    answer = httpx.get(f"{people.server.url}/sandbox/api/status")
    assert answer.status_code == 200
    services = {each["service"]: each for each in answer.json()["data"]}
    assert {"server", "sqlite", "minio", "sandbox"} <= services.keys()
    assert "redis" not in services
    for name in ("server", "sqlite", "minio", "sandbox"):
        assert services[name] == {"service": name, "status": "ok", "details": ""}
    at_the_root = httpx.get(f"{people.server.url}/api/status/").json()["data"]
    assert [each["service"] for each in at_the_root] == list(services)


def test_a_service_that_is_away_makes_the_code_503(tmp_path: Path) -> None:
    given = {
        **SETTINGS,
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "OBJECT_STORE_URL": "s3://quartet?endpoint=http://127.0.0.1:1&region=us-east-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    with serving(tmp_path / "data", given=given) as server:
        answer = httpx.get(
            f"{server.url}/sandbox/api/status", headers={"accept-language": "en"}, timeout=20
        )
        assert (answer.status_code, answer.json()["code"]) == (200, 503)
        assert answer.json()["msg"] == "Not every service answers."
        services = {each["service"]: each for each in answer.json()["data"]}
        for name in ("redis", "minio"):
            assert services[name]["status"] == "error"
            assert services[name]["details"] == "does not answer"
        assert services["sqlite"]["status"] == "ok"
        assert "127.0.0.1" not in answer.text


def test_a_ping_is_anyones_and_more_is_for_administrators(people: People) -> None:
    url = f"{people.server.url}/sandbox/api/status/minio"
    found = httpx.get(url).json()["data"]
    assert (found["ok"], found["reachable"], found["bucket_exists"]) == (True, True, True)
    admin, user = people.admin(), people.user()
    for more in ({"smoke": "true"}, {"bucket": "elsewhere"}):
        assert httpx.get(url, params=more).status_code == 403
        assert user.client.get(url, params=more).status_code == 403
        assert admin.client.get(url, params=more).status_code == 200


def test_a_smoke_test_leaves_nothing(people: People) -> None:
    admin = people.admin()
    found = admin.data("GET", "/api/status/minio", params={"smoke": "true"})
    assert found["ok"]
    assert found["match"]
    assert found["uploaded_bytes"] == found["downloaded_bytes"] == 1024
    assert "reachable" not in found
    missing = admin.data("GET", "/api/status/minio", params={"bucket": "nobodys-bucket"})
    assert missing["ok"] is False
    assert missing["bucket_exists"] is False
    assert missing["error"] == "bucket_not_exists"
    assert list(people.server.data.rglob("smoke/*")) == []


@pytest.mark.parametrize("bucket", ["../data", "a/b", "A", "..", "skills"])
def test_a_bucket_is_no_folder(people: People, bucket: str) -> None:
    answer = people.admin().client.get("/api/status/minio", params={"bucket": bucket})
    if answer.status_code == 200:
        assert answer.json()["data"]["bucket_exists"] is False
    else:
        assert answer.status_code == 422


def test_an_upload_is_read_by_its_url(people: People) -> None:
    admin = people.admin()
    upload = {"file": ("年 报.csv", CONTENT, "text/csv")}
    kept = admin.data("POST", "/api/status/minio/upload", files=upload)
    assert kept["filename"] == "年 报.csv"
    assert kept["content_type"] == "text/csv"
    assert kept["size"] == len(CONTENT)
    assert kept["object"].startswith("uploads/20")
    assert kept["etag"]
    answer = httpx.get(kept["presigned_get_url"])
    assert (answer.status_code, answer.content) == (200, CONTENT)
    without = admin.data(
        "POST", "/api/status/minio/upload", files=upload, params={"presign": "false"}
    )
    assert "presigned_get_url" not in without


def test_an_upload_replaces_nothing(people: People) -> None:
    admin = people.admin()
    name = {"object_name": f"mine/report-{time.time_ns()}.csv"}
    upload = {"file": ("a.csv", CONTENT)}
    kept = admin.data("POST", "/api/status/minio/upload", files=upload, params=name)
    assert kept["object"] == name["object_name"]
    again = admin.client.post("/api/status/minio/upload", files=upload, params=name)
    assert (again.status_code, again.json()["code"]) == (409, 409)


@pytest.mark.parametrize(
    "query",
    [
        *({"object_name": name} for name in ("files", "files/a", "knowledge", "smoke", "uploads")),
        {"prefix": "files"},
    ],
)
def test_nothing_is_put_where_the_server_keeps_its_own(
    people: People, query: dict[str, str]
) -> None:
    upload = {"file": ("a.csv", CONTENT)}
    refused = people.admin().client.post("/api/status/minio/upload", files=upload, params=query)
    assert (refused.status_code, refused.json()["code"]) == (409, 409)
    assert people.user().client.post("/api/files", files=upload).status_code == 200


def test_an_object_is_in_nobodys_way(in_directory: Server) -> None:
    """Where objects are files, a key cannot be a part of another one."""
    with people_of(in_directory) as people:
        admin, upload = people.admin(), {"file": ("a.csv", CONTENT)}
        names = (("way", 200), ("way/on", 409), ("path/on", 200), ("path", 409))
        for name, status in names:
            query = {"object_name": name}
            answer = admin.client.post("/api/status/minio/upload", files=upload, params=query)
            assert answer.status_code == status, name


@pytest.mark.parametrize(
    "query",
    [
        {"object_name": "../escape"},
        {"object_name": "/absolute"},
        {"object_name": "a/../b"},
        {"object_name": "a//b"},
        {"prefix": ".."},
        {"prefix": "a/b"},
        {"expiry_seconds": "0"},
        {"expiry_seconds": "3601"},
        {"bucket": "../x"},
    ],
)
def test_what_is_no_key_is_refused(people: People, query: dict[str, str]) -> None:
    answer = people.admin().client.post(
        "/api/status/minio/upload", files={"file": ("a", b"x")}, params=query
    )
    assert answer.status_code == 422


def test_a_missing_bucket_is_told(people: People) -> None:
    answer = people.admin().client.post(
        "/api/status/minio/upload",
        files={"file": ("a.csv", CONTENT)},
        params={"bucket": "nobodys-bucket", "object_name": "a.csv"},
    )
    assert answer.status_code == 200
    assert answer.json() == {
        "code": 400,
        "msg": "bucket_not_exists",
        "data": {"bucket": "nobodys-bucket", "object": "a.csv"},
    }


def test_uploads_are_for_administrators(people: People) -> None:
    upload = {"file": ("a.csv", CONTENT)}
    assert people.user().client.post("/api/status/minio/upload", files=upload).status_code == 403
    url = f"{people.server.url}/sandbox/api/status/minio/upload"
    assert httpx.post(url, files=upload).status_code == 401


def test_our_own_links_are_for_one_object_and_time(in_directory: Server) -> None:
    with people_of(in_directory) as people:
        admin = people.admin()
        upload = {"file": ("a.csv", CONTENT)}
        url = admin.data("POST", "/api/status/minio/upload", files=upload)["presigned_get_url"]
        other = admin.data("POST", "/api/status/minio/upload", files=upload)["object"]
        brief = admin.data(
            "POST", "/api/status/minio/upload", files=upload, params={"expiry_seconds": "1"}
        )["presigned_get_url"]
    link = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(link.query).items()}
    assert int(query["expires"]) <= time.time() + 3600

    def asked(**changes: str) -> int:
        changed = urlencode({**query, **changes})
        return httpx.get(link._replace(query=changed).geturl()).status_code

    assert asked() == 200
    assert asked(object=other) == 403
    assert asked(object="files/none") == 403
    assert asked(expires=str(int(query["expires"]) + 1)) == 403
    assert asked(signature="0" * 64) == 403
    assert asked(signature="é") == 403
    assert asked(expires="0") == 403
    assert httpx.post(url).status_code == 405
    while time.time() <= int(parse_qs(urlsplit(brief).query)["expires"][0]):
        time.sleep(0.05)
    assert httpx.get(brief).status_code == 403
