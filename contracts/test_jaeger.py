"""The gate before Jaeger: who passes, and where it sends people (security 46)."""

import pytest

from contracts.client import Reply
from contracts.sage import World

JAEGER = "https://jaeger.example.com/ui"
HOME = "/api/observability/jaeger"


def entering(world: World, wanted: str) -> Reply:
    return world.admin.client.call("jaeger_login", query={"next": wanted})


def test_who_passes(world: World) -> None:
    """No answer has a body, so that a proxy can ask."""
    passed = world.admin.client.call("jaeger_check")
    assert passed.status == 204
    assert passed.headers["x-sage-userid"] == world.admin.user_id
    assert passed.headers["x-sage-username"] == world.admin.username
    assert passed.headers["x-sage-role"] == "admin"
    assert "content-length" not in passed.headers
    for client, status in (
        (world.anonymous, 401),
        (world.anonymous.holding("not.a.token"), 401),
        (world.left(), 401),
        (world.owner.client, 403),
        (world.viewer.client, 403),
    ):
        refused = client.call("jaeger_check")
        assert (refused.status, refused.body) == (status, b"")
        assert "x-sage-userid" not in refused.headers


def test_whoever_is_not_logged_in_logs_in_first(world: World) -> None:
    sent = world.anonymous.call("jaeger_login", query={"next": f"{HOME}/search"})
    assert sent.headers["location"] == (
        "/sage/login?next=%2Fapi%2Fobservability%2Fjaeger%2Fsearch&local_only=1"
    )


@pytest.mark.parametrize(
    "wanted", [HOME, f"{HOME}/trace/abc123", f"{HOME}/search?service=quartet&limit=20"]
)
def test_places_of_ours(wanted: str, world: World) -> None:
    assert entering(world, wanted).headers["location"] == wanted


@pytest.mark.parametrize(
    "wanted",
    [
        "",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "https://evil.example",
        "https:evil.example",
        "javascript:alert(1)",
        "/%2f/evil.example",
        "/%5cevil.example",
        f"{HOME}/../../../evil",
        f"{HOME}/%2e%2e/evil",
        f"{HOME}//evil.example",
        f"{HOME}\\evil",
        f"{HOME}@evil.example",
        "@evil.example",
        "http://127.0.0.1:8000@evil.example/",
        f"{HOME}\r\nset-cookie: x=y",
        f"{HOME}\t",
        f"\x00{HOME}",
        f" {HOME}",
        "/api/observability/jaegerx",
        "/api/user/list",
    ],
)
def test_places_elsewhere(wanted: str, world: World) -> None:
    reply = entering(world, wanted)
    if reply.status == 302:
        assert reply.headers["location"] == HOME
        assert "set-cookie" not in reply.headers
    else:
        assert reply.status in (400, 422)
    sent = world.anonymous.call("jaeger_login", query={"next": wanted})
    assert "evil" not in sent.headers.get("location", "")


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        ("search", "service=a%20b&x=1&x=2", "/search?service=a%20b&x=1&x=2"),
        ("api/traces/abc", "", "/api/traces/abc"),
        ("a b/ü", "", "/a%20b/%C3%BC"),
        ("a?b#c", "", "/a%3Fb%23c"),
        ("/evil.example", "", "//evil.example"),
    ],
)
def test_path_and_query_are_kept(path: str, query: str, expected: str, world: World) -> None:
    """By every method, below the configured address and nowhere else."""
    for name in ("", "_post", "_put", "_patch", "_delete", "_head", "_options"):
        reply = world.anonymous.call(
            f"jaeger_redirect_path{name}", path={"full_path": path}, query=query
        )
        assert reply.status == 307
        assert reply.headers["location"] == JAEGER + expected
    front = world.anonymous.call("jaeger_redirect", query="a=b")
    assert front.headers["location"] == f"{JAEGER}/?a=b"
