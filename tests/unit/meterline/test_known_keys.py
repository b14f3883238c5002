"""Keys in a process: how old an answer may be, and what happens while nobody answers."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from functools import wraps
from typing import Any

import pytest

from meterline import known_keys
from meterline.known_keys import AWAY_MAX_S, REVOKED_WITHIN_S, KeysAwayError, KnownKeys
from schemas.api_key import ApiKey, Presented, Scope, secret_hash

SECRET = "5" * 64
KEY = ApiKey("a" * 16, "acme", "", frozenset({Scope.INGEST}), secret_hash(SECRET), datetime(2026, 1, 1, tzinfo=UTC))
SHOWN = Presented(KEY.id, SECRET)
GUESS = Presented("b" * 16, SECRET)


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test whose body runs in an event loop."""

    @wraps(test)
    def runs(*arguments: Any, **fixtures: Any) -> None:
        asyncio.run(test(*arguments, **fixtures))

    return runs


class Store:
    """Keys that a test takes away, and a clock that it turns."""

    def __init__(self, *keys: ApiKey) -> None:
        self.keys = {key.id: key for key in keys}
        self.away = False
        self.fifth = threading.Event()
        self.asked: list[list[str]] = []
        self.now_s = 0.0
        self.known = KnownKeys(self.look_up, lambda: self.now_s)

    def look_up(self, ids: Sequence[str]) -> dict[str, ApiKey]:
        """As the store of PostgreSQL does."""
        self.asked.append(list(ids))
        if len(self.asked) == 5:
            self.fifth.set()
        if self.away:
            raise ConnectionError
        return {each: self.keys[each] for each in ids if each in self.keys}


@in_loop
async def test_a_key_is_asked_for_once_and_then_refreshed() -> None:
    """Requests do not wait for the store again, however many there are."""
    store = Store(KEY)
    for _ in range(100):
        assert await store.known.find(SHOWN) == KEY
    assert store.asked == [[KEY.id]]
    await store.known.refresh()
    assert store.asked == [[KEY.id]] * 2
    assert await store.known.find(SHOWN._replace(secret="6" * 64)) is None


@in_loop
async def test_a_revoked_key_stops_with_the_refresh_and_at_the_latest_at_the_bound() -> None:
    """With a refresh at once; and where none came through, the request itself asks."""
    for refreshed in (True, False):
        store = Store(KEY)
        assert await store.known.find(SHOWN) == KEY
        store.keys.clear()
        store.now_s = REVOKED_WITHIN_S
        assert await store.known.find(SHOWN) == KEY
        if refreshed:
            await store.known.refresh()
        store.now_s += 0.001
        assert await store.known.find(SHOWN) is None


@in_loop
async def test_known_keys_go_on_while_nobody_answers_and_not_for_ever() -> None:
    """Usage is taken while PostgreSQL is away; what is not known then cannot be told from a bad key."""
    store = Store(KEY)
    assert await store.known.find(SHOWN) == KEY
    store.away = True
    store.now_s = AWAY_MAX_S
    assert await store.known.find(SHOWN) == KEY
    with pytest.raises(KeysAwayError):
        await store.known.find(GUESS)
    store.now_s += 1
    with pytest.raises(KeysAwayError):
        await store.known.find(SHOWN)
    store.away = False
    store.keys.clear()
    await store.known.refresh()
    assert await store.known.find(SHOWN) is None
    assert await store.known.find(GUESS) is None


@in_loop
async def test_while_it_is_away_only_the_refresh_asks() -> None:
    """Requests are not held up one by one by a server that does not answer."""
    store = Store()
    store.away = True
    for _ in range(5):
        with pytest.raises(KeysAwayError):
            await store.known.find(GUESS)
    assert len(store.asked) == 1
    await store.known.refresh()
    assert store.asked[1:] == [[]]


@in_loop
async def test_guesses_cost_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids without a key are remembered until the next refresh, and never more than so many."""
    monkeypatch.setattr(known_keys, "KEYS_MAX", 10)
    store = Store(KEY)
    guesses = [Presented(f"{number:016x}", SECRET) for number in range(50)]
    assert await asyncio.gather(*(store.known.find(guess) for guess in guesses)) == [None] * 50
    assert len(store.known._known) == 10
    assert await store.known.find(SHOWN) == KEY
    await store.known.refresh()
    assert list(store.known._known) == [KEY.id]


@in_loop
async def test_it_refreshes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it runs, without any request."""
    monkeypatch.setattr(known_keys, "REFRESH_INTERVAL_S", 0.001)
    store = Store(KEY)
    async with store.known.running():
        await store.known.find(SHOWN)
        assert await asyncio.to_thread(store.fifth.wait, 10)
