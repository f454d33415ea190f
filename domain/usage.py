"""What an account has used: tools and tokens, counted from the rows of calls."""

import time

from storage.runs import RunStore, Tokens

DAY_S = 24 * 3600.0


class Usage:
    """Counts over the latest days, of the account's own runs."""

    def __init__(self, runs: RunStore) -> None:
        self._runs = runs

    async def tool_counts(
        self, user_id: str, days: int, agent_id: str | None = None
    ) -> dict[str, int]:
        """How often each tool was called, by name; of one agent's runs, or of all."""
        return await self._runs.tool_counts(user_id, time.time() - days * DAY_S, agent_id)

    async def tokens(self, user_id: str, days: int) -> Tokens:
        """Model calls and their tokens."""
        return await self._runs.tokens(user_id, time.time() - days * DAY_S)
