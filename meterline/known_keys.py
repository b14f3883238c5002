"""The keys that a process knows: asked for once, and asked for again all the time, so that no request waits for it.

Owns how old an answer may be. A key that was revoked stops within REVOKED_WITHIN_S where PostgreSQL answers. Where it
does not, known keys go on for AWAY_MAX_S: usage is taken while PostgreSQL is away, and whoever cannot reach it cannot
revoke a key in it either.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from schemas.api_key import ApiKey, Presented, opens

REFRESH_INTERVAL_S = 1.0
REVOKED_WITHIN_S = 3.0  # the interval, and reads that are slow; an older answer is asked for again at once
AWAY_MAX_S = 3600.0
KEYS_MAX = 10_000
QUESTIONS_MAX = 4  # at a time, for keys that are not known: guesses do not take every connection

logger = logging.getLogger(__name__)

LookUp = Callable[[Sequence[str]], dict[str, ApiKey]]


class KeysAwayError(RuntimeError):
    """Nobody answers whether a key is in force."""


@dataclass
class _Known:
    key: ApiKey | None
    read_at_s: float


class KnownKeys:
    """Keys by id, and ids of which there is no key, as a store said lately. `look_up` ends within seconds."""

    def __init__(self, look_up: LookUp, now_s: Callable[[], float] = time.monotonic) -> None:
        self._look_up = look_up
        self._now_s = now_s
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._questions = asyncio.Semaphore(QUESTIONS_MAX)
        self._away = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask again and again for what is known, until the end."""
        task = asyncio.create_task(self._refresh_again())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def find(self, presented: Presented) -> ApiKey | None:
        """The key that is presented, if it is in force. Raises KeysAwayError when that cannot be said."""
        known = self._known.get(presented.id)
        age_s = self._now_s() - known.read_at_s if known else 0.0
        if known is None or age_s > REVOKED_WITHIN_S:
            try:
                known = await self._ask(presented.id)
            except KeysAwayError:
                if known is None or known.key is None or age_s > AWAY_MAX_S:
                    raise
        return known.key if opens(known.key, presented) else None

    async def refresh(self) -> None:
        """Ask for all known keys at once, and forget the ids that had none. Without an answer, all stays as it was."""
        ids = [key_id for key_id, known in self._known.items() if known.key]
        if not ids and not self._away:
            self._known.clear()
            return
        read_at_s = self._now_s()
        found = await self._answer(ids)
        if found is not None:
            self._known = OrderedDict((each, _Known(found[each], read_at_s)) for each in ids if each in found)

    async def _refresh_again(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_INTERVAL_S)
            await self.refresh()

    async def _ask(self, key_id: str) -> _Known:
        async with self._questions:
            if self._away:
                raise KeysAwayError
            read_at_s = self._now_s()
            found = await self._answer([key_id])
        if found is None:
            raise KeysAwayError
        known = _Known(found.get(key_id), read_at_s)
        self._known[key_id] = known
        while len(self._known) > KEYS_MAX:
            self._known.popitem(last=False)
        return known

    async def _answer(self, ids: list[str]) -> dict[str, ApiKey] | None:
        try:
            found = await asyncio.to_thread(self._look_up, ids)
        except Exception as error:  # noqa: BLE001  whatever the driver raises, requests go on
            if not self._away:
                logger.warning("no answer about keys, those of before go on: %s", type(error).__name__)
            self._away = True
            return None
        if self._away:
            logger.warning("there are answers about keys again")
        self._away = False
        return found
