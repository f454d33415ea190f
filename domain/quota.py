"""How much an account may keep."""

from domain.errors import TooLarge
from storage.database import Unit
from storage.holdings import held_by


class Quota:
    """`most` bytes of uploads per account (storage.holdings says what counts); 0: no limit."""

    def __init__(self, most: int) -> None:
        self._most = most

    def hold(self, owner_id: str) -> Unit[None]:
        """The end of a unit that keeps more: with too much, nothing of the unit is done. Of uploads
        at once those are refused that would exceed the limit. Raises TooLarge("storage.quota")."""
        if self._most and (held := (yield from held_by(owner_id))) > self._most:
            raise TooLarge("storage.quota", held=held, limit=self._most)
