"""The part of the command line that says who may use a server: its options, and the commands of API keys."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from meterline.listening import HOST, Listening
from schemas.tenant import DEFAULT_TENANT, EVENTS_PER_SECOND_MAX

_rate_limit = click.IntRange(1, EVENTS_PER_SECOND_MAX)
_listening = (
    click.option("--host", default=HOST, show_default=True, help="The address."),
    click.option("--port", default=8888, show_default=True, help="The port; 0 takes a free one."),
    click.option(
        "--keys/--without-keys", default=None, help="Whether requests need a key; by default, where others reach it."
    ),
    click.option(
        "--rate-limit", type=_rate_limit, metavar="EVENTS_PER_SECOND",
        help="What each tenant may send to this process, and ten seconds of it in a burst.",
    ),
)  # fmt: skip


def listening_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of where to listen and to whom, and their values as its argument `listening`."""

    @wraps(command)
    def listens(*, host: str, port: int, keys: bool | None, rate_limit: int | None, **others: Any) -> None:
        command(listening=Listening(port, host, keys, rate_limit), **others)

    decorated: Callable[..., None] = listens
    for option in reversed(_listening):
        decorated = option(decorated)
    return decorated


def key_commands(run: Callable[..., None], data_option: Callable[..., Any]) -> click.Group:
    """The commands of keys; `run` runs an operation where the data is."""

    @click.group()
    def keys() -> None:
        """API keys, and what their tenants may send."""

    @keys.command("create")
    @data_option
    @click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="Whose usage the key is for.")
    @click.option("--scope", required=True, metavar="ingest,query,admin", help="What it is for: one or more.")
    @click.option("--name", default="", help="What you call it.")
    def create(data: Path, tenant: str, scope: str, name: str) -> None:
        """Make a key and print it. It is never shown again."""
        run(data, "create_key", tenant=tenant, scope=scope, name=name)

    @keys.command("list")
    @data_option
    @click.option("--tenant", help="Only of this tenant.")
    def list_all(data: Path, tenant: str | None) -> None:
        """List the keys, revoked ones too."""
        run(data, "list_keys", tenant=tenant)

    @keys.command("revoke")
    @data_option
    @click.argument("key_id", metavar="ID")
    def revoke(data: Path, key_id: str) -> None:
        """Revoke a key, for good. It stops working within a few seconds."""
        run(data, "revoke_key", key_id=key_id)

    @keys.command("limit")
    @data_option
    @click.option("--tenant", required=True)
    @click.option("--rate-limit", type=_rate_limit, metavar="EVENTS_PER_SECOND")
    def limit(data: Path, tenant: str, rate_limit: int | None) -> None:
        """Set what a tenant may send; without --rate-limit, what each gateway says."""
        run(data, "limit_tenant", tenant=tenant, events_per_second=rate_limit)

    return keys
