"""The secret box: values at rest under envelope encryption (security checklist 54).

Each value is encrypted by a data key of its own (AES-256-GCM, NIST SP 800-38D), the data key by
the key-encryption key; what a value belongs to (its context, such as "provider:<id>:api_key") is
authenticated with both, so that a sealed value moved to another row does not open. A sealed value
is text: `q1.<key id>.<wrapped data key>.<encrypted value>`, the last two as base64url of a 96-bit
nonce and the ciphertext. Rotation wraps the data key anew and leaves the value as it is.

Keys are 32 bytes, written as base64 (standard or URL alphabet) or 64 hexadecimal digits. A key
file may hold several, one per line: the first seals, all open.
"""

import base64
import binascii
import contextlib
import hashlib
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gateways.errors import SealBroken, WrongKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VERSION = "q1"
KEY_BYTES = 32
NONCE_BYTES = 12
ENVIRONMENT = "SECRETS_KEY"
MASK = "****"

_CANARY_CONTEXT = "canary"
_CANARY = b"quartet"


def mask(secret: str) -> str:
    """What is shown of a secret: `****` and its last four characters; of one shorter than eight
    characters nothing, for four would be half of it."""
    return MASK + (secret[-4:] if len(secret) >= 8 else "")


def parse_key(text: str) -> bytes:
    """Raises ValueError for anything but 32 bytes, and for keys that nobody drew at random."""
    text = text.strip()
    try:
        if len(text) == 64:
            key = bytes.fromhex(text)
        else:
            key = base64.b64decode(text.replace("-", "+").replace("_", "/") + "==")
    except (ValueError, binascii.Error):
        raise ValueError("a secrets key is 32 bytes in base64 or hexadecimal") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"a secrets key has 32 bytes, this one {len(key)}")
    if len(set(key)) < 8:
        raise ValueError("this secrets key was not drawn at random")
    return key


def load_keys(
    data: Path, key_file: Path | None = None, environment: Mapping[str, str] = os.environ
) -> list[bytes]:
    """The key-encryption keys, the sealing one first: from `key_file`, else from the variable
    SECRETS_KEY (several with commas), else from DATA/secrets.key, which is made on the first
    start with mode 0600.

    Raises ValueError for a key that cannot be used, OSError for a file that cannot be read.
    """
    if key_file is not None:
        return _parse_all(key_file.read_text().splitlines(), str(key_file))
    if given := environment.get(ENVIRONMENT, ""):
        return _parse_all(given.split(","), ENVIRONMENT)
    own = data / "secrets.key"
    if not own.exists():
        _create(own, base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
    if own.stat().st_mode & 0o077:
        raise ValueError(f"{own} can be read by others; its mode must be 0600")
    return _parse_all(own.read_text().splitlines(), str(own))


def _parse_all(lines: Sequence[str], source: str) -> list[bytes]:
    try:
        keys = [parse_key(line) for line in lines if line.strip() and not line.startswith("#")]
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    if not keys:
        raise ValueError(f"{source}: no key stands in it")
    return keys


def _create(path: Path, content: bytes) -> None:
    """Write a private file at once and whole; of two that start together, one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def key_id(key: bytes) -> str:
    """A key's name in envelopes; it tells nothing about the key."""
    return hashlib.sha256(b"quartet key id" + key).hexdigest()[:8]


class SecretBox:
    """Seals with the first key, opens with any."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise ValueError("a secret box needs at least one key of 32 bytes")
        self._cipher = AESGCM
        self._keys = {key_id(key): AESGCM(key) for key in keys}
        self.key_id = key_id(keys[0])

    def __repr__(self) -> str:
        return f"SecretBox({self.key_id})"

    def seal(self, plaintext: str, context: str) -> str:
        """Encrypt `plaintext` so that it opens under `context` alone."""
        data_key = secrets.token_bytes(KEY_BYTES)
        value = _encrypt(self._cipher(data_key), plaintext.encode(), _value_context(context))
        return self._envelope(data_key, value, context)

    def open(self, sealed: str, context: str) -> str:
        """Raises WrongKey (sealed by a key that is not at hand) and SealBroken (changed, cut, or
        sealed for another context)."""
        data_key, value = self._unwrap(sealed, context)
        plaintext = _decrypt(self._cipher(data_key), value, _value_context(context))
        return plaintext.decode()

    def rotate(self, sealed: str, context: str) -> str:
        """The same value under the first key. Returns `sealed` itself if it is already.

        Raises what `open` raises.
        """
        if sealed.split(".")[1:2] == [self.key_id]:
            return sealed
        data_key, value = self._unwrap(sealed, context)
        return self._envelope(data_key, value, context)

    def canary(self) -> str:
        """A value to keep with the data, by which `check` knows the key again."""
        return self.seal(_CANARY.decode(), _CANARY_CONTEXT)

    def check(self, canary: str) -> None:
        """Refuse to work with a key that cannot open what is stored. Raises WrongKey."""
        try:
            known = self.open(canary, _CANARY_CONTEXT) == _CANARY.decode()
        except SealBroken:
            known = False
        if not known:
            raise WrongKey(_WRONG_KEY)

    def _envelope(self, data_key: bytes, value: bytes, context: str) -> str:
        wrapped = _encrypt(self._keys[self.key_id], data_key, _key_context(context))
        return ".".join((VERSION, self.key_id, _text(wrapped), _text(value)))

    def _unwrap(self, sealed: str, context: str) -> tuple[bytes, bytes]:
        parts = sealed.split(".")
        if len(parts) != 4 or parts[0] != VERSION:
            raise SealBroken("this is not a sealed value")
        try:
            wrapped, value = (_bytes(part) for part in parts[2:])
        except (ValueError, binascii.Error):
            raise SealBroken("this is not a sealed value") from None
        if (key := self._keys.get(parts[1])) is None:
            raise WrongKey(_WRONG_KEY)
        data_key = _decrypt(key, wrapped, _key_context(context))
        return data_key, value


_WRONG_KEY = (
    "the secrets key is not the one that sealed the stored secrets; "
    "give the former key back (it may stand second in the key file)"
)


def _value_context(context: str) -> bytes:
    return f"{VERSION}:value:{context}".encode()


def _key_context(context: str) -> bytes:
    return f"{VERSION}:key:{context}".encode()


def _encrypt(cipher: "AESGCM", plaintext: bytes, context: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plaintext, context)


def _decrypt(cipher: "AESGCM", data: bytes, context: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag

    try:
        return cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], context)
    except (InvalidTag, ValueError):
        raise SealBroken("the sealed value was changed, or belongs elsewhere") from None


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    """Raises ValueError; also for a second spelling of the same bytes."""
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if _text(data) != text:
        raise ValueError("not in canonical base64")
    return data
