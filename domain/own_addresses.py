"""Telling addresses of this server from those of others."""

from urllib.parse import SplitResult, urlsplit


def own_path(base_url: str, url: str) -> SplitResult | None:
    """An address below `base_url`, or one without a host, with its path made relative to the
    contract's root (`/oss/…`, `/api/…`); None for every other address."""
    try:
        base, given = urlsplit(base_url), urlsplit(url)
    except ValueError:
        return None
    if (given.scheme, given.netloc) not in ((base.scheme, base.netloc), ("", "")):
        return None
    prefix = base.path.rstrip("/")
    if not given.path.startswith(f"{prefix}/"):
        return None
    path = given.path[len(prefix) :]
    return given._replace(path=path[len("/sage") :] if path.startswith("/sage/") else path)
