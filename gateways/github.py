"""What a repository on GitHub has released (GitHub REST API, "Get the latest release")."""

from datetime import datetime

import msgspec

from gateways.errors import OutboundFailed
from gateways.outbound import Outbound

PURPOSE = "github"
RELEASE_MAX = 4 * 1024 * 1024
TEXT_MAX = 16 * 1024
TIMEOUT_S = 20.0
ASSETS_MAX = 200
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
