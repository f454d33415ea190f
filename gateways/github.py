"""What a repository on GitHub has released, and what lies in its folders (GitHub REST API, "Get the
latest release", "List matching references", "Download a repository archive (tar)")."""

import asyncio
import io
import re
import tarfile
import zlib
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import quote

import msgspec

from gateways.archives import ArchiveRefused
from gateways.errors import OutboundFailed
from gateways.outbound import Outbound

PURPOSE = "github"
RELEASE_MAX = 4 * 1024 * 1024
TEXT_MAX = 16 * 1024
TIMEOUT_S = 20.0
ASSETS_MAX = 200
ARCHIVE_MAX = 64 * 1024 * 1024
UNPACKED_MAX = 256 * 1024 * 1024
"""Bytes of a repository as it is sent, and unpacked."""
ARCHIVE_S = 60.0
MEMBERS_MAX = 100_000
REFS_MAX = 1024 * 1024
_SHA = re.compile(r"[0-9a-f]{7,40}")
_HEADERS = {"accept": "application/vnd.github+json", "x-github-api-version": "2022-11-28"}


class Asset(msgspec.Struct, frozen=True):
    """A file of a release, and where it is downloaded."""

    name: str
    browser_download_url: str


class Release(msgspec.Struct, frozen=True):
    """A release as the API gives it. `published_at` carries its offset from UTC."""

    tag_name: str
    published_at: datetime
    body: str | None = None
    assets: list[Asset] = []


class Releases:
    """The releases of one repository, `owner/name`; `api_url` is where the API stands."""

    def __init__(self, outbound: Outbound, api_url: str, repository: str) -> None:
        self._outbound = outbound
        self._api_url = api_url.rstrip("/")
        self.repository = repository

    async def latest(self) -> Release:
        """The newest release that is neither a draft nor a pre-release, with at most 200 assets.

        Raises OutboundError, OutboundFailed when the answer is no release.
        """
        url = f"{self._api_url}/repos/{self.repository}/releases/latest"
        body = await self._get(url, RELEASE_MAX, _HEADERS)
        try:
            found = msgspec.json.decode(body, type=Release)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise OutboundFailed("the answer is no release") from None
        return msgspec.structs.replace(found, assets=found.assets[:ASSETS_MAX])

    async def text(self, asset: Asset) -> str:
        """A small asset as text, such as a signature. Raises OutboundError."""
        body = await self._get(asset.browser_download_url, TEXT_MAX, {})
        try:
            return body.decode("ascii").strip()
        except UnicodeDecodeError:
            raise OutboundFailed("the asset is no ASCII text") from None

    async def _get(self, url: str, max_bytes: int, headers: dict[str, str]) -> bytes:
        answer = await self._outbound.fetch(
            PURPOSE, url, max_bytes=max_bytes, timeout=TIMEOUT_S, headers=headers
        )
        if answer.status != 200:
            raise OutboundFailed(f"the address answers {answer.status}")
        return answer.body


class Ref(msgspec.Struct, frozen=True):
    """What a ref points to; `length` names of the address make it up."""

    sha: str
    length: int


class Folder(msgspec.Struct, frozen=True):
    """A folder of a repository, "" for all of it, and how much it may hold: files, bytes of one of
    them, bytes of all."""

    path: str
    files: int
    file_bytes: int
    bytes: int


class _Object(msgspec.Struct):
    sha: str


class _Reference(msgspec.Struct):
    ref: str
    object: _Object


class Trees:
    """Folders of repositories; `api_url` is where the API stands. Raises OutboundError, and
    OutboundFailed for an answer that is none."""

    def __init__(self, outbound: Outbound, api_url: str, purpose: str) -> None:
        self._outbound = outbound
        self._api_url = api_url.rstrip("/")
        self._purpose = purpose

    async def ref(self, owner: str, repository: str, names: Sequence[str]) -> Ref:
        """The branch, tag or commit that the names of an address begin with. A branch comes before
        a tag, and git has no branch `a` beside a branch `a/b`."""
        for kind in ("heads", "tags"):
            first = quote(names[0], safe="")
            url = f"{self._of(owner, repository)}/git/matching-refs/{kind}/{first}"
            for found in _references(await self._get(url)):
                ref = found.ref.removeprefix(f"refs/{kind}/").split("/")
                if list(names[: len(ref)]) == ref:
                    return Ref(_fit(found.object.sha), len(ref))
        if _SHA.fullmatch(names[0]):
            return Ref(names[0], 1)
        raise OutboundFailed("the repository has no such branch, tag or commit")

    async def folder(
        self, owner: str, repository: str, sha: str, folder: Folder
    ) -> dict[str, bytes]:
        """The files of a folder by their paths in it; nothing where there is none. Raises also
        ArchiveRefused."""
        answer = await self._outbound.fetch(
            self._purpose,
            f"{self._of(owner, repository)}/tarball/{sha}",
            max_bytes=ARCHIVE_MAX,
            timeout=ARCHIVE_S,
            headers=_HEADERS,
        )
        if answer.status != 200:
            raise OutboundFailed(f"GitHub answers {answer.status}")
        return await asyncio.to_thread(unpacked, answer.body, folder)

    def _of(self, owner: str, repository: str) -> str:
        return f"{self._api_url}/repos/{quote(owner)}/{quote(repository)}"

    async def _get(self, url: str) -> bytes:
        answer = await self._outbound.fetch(
            self._purpose, url, max_bytes=REFS_MAX, timeout=TIMEOUT_S, headers=_HEADERS
        )
        if answer.status != 200:
            raise OutboundFailed(f"GitHub answers {answer.status}")
        return answer.body


def _references(body: bytes) -> list[_Reference]:
    try:
        return msgspec.json.decode(body, type=list[_Reference])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise OutboundFailed("the answer is no list of refs") from None


def _fit(sha: str) -> str:
    if not _SHA.fullmatch(sha):
        raise OutboundFailed("the answer is no list of refs")
    return sha


def unpacked(content: bytes, folder: Folder) -> dict[str, bytes]:
    """The files of a folder in a repository's archive, whose paths all begin with a directory of
    GitHub's. What lies elsewhere is passed over; links and devices in the folder refuse it whole.
    Blocks. Raises ArchiveRefused."""
    within = f"{folder.path}/" if folder.path else ""
    found: dict[str, bytes] = {}
    left = folder.bytes
    try:
        with tarfile.open(fileobj=io.BytesIO(_inflated(content)), mode="r:") as archive:
            for number, member in enumerate(archive):
                if number == MEMBERS_MAX:
                    raise ArchiveRefused("the repository has too many files")
                path = member.name.partition("/")[2]
                if not path.startswith(within) or path == within or member.isdir():
                    continue
                if not member.isreg():
                    raise ArchiveRefused("it holds a link or a device")
                left -= member.size
                if len(found) == folder.files:
                    raise ArchiveRefused(f"it has more than {folder.files} files")
                if member.size > folder.file_bytes:
                    raise ArchiveRefused(f"a file has more than {folder.file_bytes} bytes")
                if left < 0:
                    raise ArchiveRefused(f"it has more than {folder.bytes} bytes")
                file = archive.extractfile(member)
                relative = path.removeprefix(within)
                if file is None or relative in found:
                    raise ArchiveRefused("it is damaged")
                found[relative] = file.read()
    except (tarfile.TarError, ValueError, EOFError, RecursionError):
        raise ArchiveRefused("the answer is no archive that can be read") from None
    return found


def _inflated(content: bytes) -> bytes:
    inflate = zlib.decompressobj(wbits=31)
    try:
        plain = inflate.decompress(content, UNPACKED_MAX + 1)
    except zlib.error:
        raise ArchiveRefused("the answer is no archive that can be read") from None
    if len(plain) > UNPACKED_MAX:
        raise ArchiveRefused(f"the repository unpacks to more than {UNPACKED_MAX} bytes")
    return plain
