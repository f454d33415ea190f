"""Uploaded files: who reads them, and what a browser does with them (security 30, 34, 35)."""

import pytest

from contracts.client import Form
from contracts.sage import PNG, World, address_of

HTML = b"<!doctype html><script>alert(document.cookie)</script>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'


def test_an_address_is_open_to_whoever_has_it(world: World) -> None:
    url = world.published(world.owner, "Bericht 2024 – ü.png")
    assert url.startswith(f"{world.started.url}/oss/")
    for client in (world.anonymous, world.stranger.client, world.owner.client):
        read = client.call("oss_download", path=address_of(url))
        assert read.success
        assert read.body == PNG


def test_an_address_cannot_be_guessed(world: World) -> None:
    first, second = (address_of(world.published(world.owner)) for _ in range(2))
    assert len(first["link"]) == 32
    assert first["link"] != second["link"]
    renamed = {**first, "file_name": "b.png"}
    for path in (renamed, {**first, "link": "0" * 32}, {**first, "link": first["link"][:-1]}):
        assert world.anonymous.call("oss_download", path=path).status == 404


@pytest.mark.parametrize(
    ("name", "content", "shown"),
    [
        ("a.png", PNG, "image/png"),
        ("a.html", HTML, ""),
        ("a.png", HTML, ""),
        ("a.svg", SVG, ""),
        ("a.png", SVG, ""),
        ("a.html", PNG, "image/png"),
        ("empty", b"", ""),
    ],
)
def test_browsers_show_images_and_save_the_rest(
    name: str, content: bytes, shown: str, world: World
) -> None:
    """What the uploader calls it does not matter."""
    url = world.published(world.owner, name, content)
    read = world.anonymous.call("oss_download", path=address_of(url))
    assert read.success
    assert read.headers["content-type"] == (shown or "application/octet-stream")
    kind = read.headers["content-disposition"].partition(";")[0]
    assert kind == ("inline" if shown else "attachment")
    assert read.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in read.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "../up",
        "a/../b",
        "/etc",
        "a//b",
        "a\\b",
        "a/\0",
        ".hidden",
        "a/.",
        "x" * 200,
        "/".join("abcdefghi"),
        "C:\\x",
        "a/\x1b",
    ],
)
def test_folders_that_lead_elsewhere_are_refused(path: str, world: World) -> None:
    form: Form = [("path", path), ("file", ("a.txt", b"a"))]
    reply = world.owner.client.call("oss_create", form=form)
    assert reply.status in (400, 422)


@pytest.mark.parametrize("name", ["../../x.png", "a/b\\c.png", "..", "\r\nX: y.png", "x" * 500])
def test_names_become_one_safe_segment(name: str, world: World) -> None:
    path = address_of(world.published(world.owner, name))
    assert not {"/", "\\", "\r", "\n", ":"} & set(path["file_name"])
    assert len(path["file_name"]) <= 150
    assert world.anonymous.call("oss_download", path=path).success


def test_text_is_no_file(world: World) -> None:
    for form in ([("file", "/etc/passwd")], [("file", ("x", b"x")), ("path", ("y", b"up"))]):
        assert world.owner.client.call("oss_create", form=form).status == 422


def test_a_range_of_files_is_too_many(world: World) -> None:
    form: Form = [("file", (f"{n}.txt", b"a")) for n in range(21)]
    assert world.owner.client.call("oss_create", form=form).status == 400


def test_a_deleted_account_leaves_no_file(world: World) -> None:
    account = world.account("leaving")
    url = world.published(account)
    body = {"user_id": account.user_id}
    assert world.admin.client.call("user_delete", body=body).success
    assert world.anonymous.call("oss_download", path=address_of(url)).status == 404
    if world.started.data is not None:
        kept = list((world.started.data / "objects").rglob("*"))
        again = world.published(world.owner)
        assert world.anonymous.call("oss_download", path=address_of(again)).success
        assert len(list((world.started.data / "objects").rglob("*"))) == len(kept) + 1


def test_a_retry_is_one_file(world: World) -> None:
    """The same key and form: the same address (rules, "Idempotency")."""
    key = {"idempotency-key": "the-same-upload"}
    sent = {"form": [("file", ("a.png", PNG)), ("path", "x")], "headers": key}
    first, second = (world.owner.client.call("oss_create", **sent) for _ in range(2))
    assert first.data == second.data
    assert second.headers["idempotency-replayed"] == "true"
    other = {**sent, "form": [("file", ("a.png", PNG + b"x")), ("path", "x")]}
    assert world.owner.client.call("oss_create", **other).status == 409
