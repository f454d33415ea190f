"""Versions over a real database and a server that speaks GitHub's release API."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from domain.caller import Caller
from domain.errors import Conflict, Disabled, NotFound, Unavailable, Unusable
from domain.versions import Versions, updates
from gateways.github import Releases
from gateways.outbound import Outbound
from storage.database import Database
from storage.events import EventLog
from storage.versions import Artifact, VersionStore
from storage.wakeups import OneProcess
from tests.gateways.peer import Peer, plain
from tests.storage.accounts import make_accounts

ROOT = Caller(user_id="root", role="admin")
LATEST = "/repos/sage/desktop/releases/latest"


@pytest.fixture
async def github() -> AsyncIterator[Peer]:
    peer = await Peer().start()
    yield peer
    await peer.stop()


@pytest.fixture
async def versions(database: Database, github: Peer) -> AsyncIterator[Versions]:
    await make_accounts(database, "root")
    outbound = Outbound(["github=127.0.0.1"])
    yield made(database, outbound, github.url)
    await outbound.close()


def made(
    database: Database, outbound: Outbound, url: str, repository: str = "sage/desktop"
) -> Versions:
    return Versions(
        database,
        VersionStore(database),
        EventLog(database, OneProcess()),
        Releases(outbound, url, repository),
        clock=lambda: 1710000000.0,
    )


def release(github: Peer, *names: str, **changed: Any) -> None:
    assets = [{"name": n, "browser_download_url": f"{github.url}/dl/{n}"} for n in names]
    body = {
        "tag_name": "v1.2.0",
        "published_at": "2024-03-09T16:00:00Z",
        "body": "Notes.",
        "assets": assets,
        **changed,
    }
    github.routes[LATEST] = plain(200, json.dumps(body), "application/json")
    for name in names:
        github.routes[f"/dl/{name}"] = plain(200, f"signature of {name}\n")


async def test_the_latest_release_becomes_a_version(versions: Versions, github: Peer) -> None:
    release(
        github,
        "Sage_x64.dmg",
        "Sage_x64.app.tar.gz",
        "Sage_x64.app.tar.gz.sig",
        "Sage_arm64.deb",
        "notes.txt",
    )
    version = await versions.import_github(ROOT)
    assert (version.version, version.release_notes) == ("1.2.0", "Notes.")
    assert version.published_at == 1710000000.0
    assert version.artifacts == [
        Artifact(
            platform="darwin-x86_64",
            installer_url=f"{github.url}/dl/Sage_x64.dmg",
            updater_url=f"{github.url}/dl/Sage_x64.app.tar.gz",
            updater_signature="signature of Sage_x64.app.tar.gz.sig",
        ),
        Artifact(platform="linux-aarch64", installer_url=f"{github.url}/dl/Sage_arm64.deb"),
    ]
    assert await versions.latest() == version
    assert list(updates(version)) == ["darwin-x86_64"]
    asked = [request.target for request in github.requests]
    assert asked == [LATEST, "/dl/Sage_x64.app.tar.gz.sig"]


async def test_importing_again_brings_up_to_date(versions: Versions, github: Peer) -> None:
    release(github, "Sage_x64.app.tar.gz")
    assert (await versions.import_github(ROOT)).artifacts == []
    release(github, "Sage_x64.app.tar.gz", "Sage_x64.app.tar.gz.sig")
    assert len((await versions.import_github(ROOT)).artifacts) == 1
    assert len(await versions.list()) == 1


@pytest.mark.parametrize(
    "answer",
    [
        plain(404, "{}"),
        plain(500, "{}"),
        plain(200, "no JSON"),
        plain(200, "[]"),
        plain(200, '{"tag_name": "v1.0.0"}'),
        plain(200, '{"tag_name": "v1.0.0", "published_at": "yesterday"}'),
        plain(200, b"\xff\xfe"),
        b"garbage\r\n\r\n",
    ],
)
async def test_what_is_no_release_changes_nothing(
    answer: bytes, versions: Versions, github: Peer
) -> None:
    github.routes[LATEST] = answer
    with pytest.raises(Unavailable):
        await versions.import_github(ROOT)
    assert await versions.list() == []


async def test_a_missing_signature_file_changes_nothing(versions: Versions, github: Peer) -> None:
    release(github, "Sage_x64.app.tar.gz", "Sage_x64.app.tar.gz.sig")
    github.routes["/dl/Sage_x64.app.tar.gz.sig"] = plain(200, b"\xff" * 10)
    with pytest.raises(Unavailable):
        await versions.import_github(ROOT)
    del github.routes["/dl/Sage_x64.app.tar.gz.sig"]
    with pytest.raises(Unavailable):
        await versions.import_github(ROOT)
    assert await versions.list() == []


@pytest.mark.parametrize("tag", ["nightly", "", "v", "1.2.0/../..", "1.2.0\n", "check"])
async def test_a_tag_that_names_no_version(tag: str, versions: Versions, github: Peer) -> None:
    release(github, tag_name=tag)
    with pytest.raises(Unusable):
        await versions.import_github(ROOT)


async def test_an_address_that_is_no_web_address(versions: Versions, github: Peer) -> None:
    asset = {"name": "Sage_x64.dmg", "browser_download_url": "javascript:alert(1)"}
    release(github, assets=[asset])
    with pytest.raises(Unusable):
        await versions.import_github(ROOT)


async def test_addresses_inside_are_refused(database: Database, github: Peer) -> None:
    """Without the operator's leave, the door for the outside stays shut (security 23 to 28)."""
    outbound = Outbound()
    release(github)
    with pytest.raises(Unavailable):
        await made(database, outbound, github.url).import_github(ROOT)
    assert github.connections == 0
    await outbound.close()


async def test_without_a_repository_there_is_nothing_to_import(
    database: Database, github: Peer
) -> None:
    with pytest.raises(Disabled):
        await made(database, Outbound(), github.url, "").import_github(ROOT)


async def test_names_with_and_without_v_are_one(versions: Versions) -> None:
    version = await versions.create(ROOT, "v1.2.0", "", [])
    assert version.version == "1.2.0"
    with pytest.raises(Conflict):
        await versions.create(ROOT, "1.2.0", "", [])
    await versions.delete(ROOT, "v1.2.0")
    with pytest.raises(NotFound):
        await versions.delete(ROOT, "1.2.0")
    with pytest.raises(NotFound):
        await versions.updating()


async def test_a_platform_stands_once(versions: Versions) -> None:
    twice = [Artifact(platform="linux-x86_64"), Artifact(platform="linux-x86_64")]
    with pytest.raises(Unusable):
        await versions.create(ROOT, "1.0.0", "", twice)
    assert await versions.list() == []
