"""The part of the command line that tells others what happens: webhooks, and the outbox."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from schemas.delivery import OLD_SECRET_VALID, DeliveryState
from schemas.tenant import DEFAULT_TENANT

_tenant = click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="Whose endpoint it is.")
_endpoint = click.argument("webhook_id", metavar="ID")


def webhook_commands(run: Callable[..., None], data_option: Callable[..., Any]) -> click.Group:
    """The commands of webhooks; `run` runs an operation where the data is."""

    @click.group()
    def webhooks() -> None:
        """Endpoints that are told of what happens in billing."""

    @webhooks.command("create")
    @data_option
    @_tenant
    @click.argument("url")
    @click.option("--types", default="", metavar="invoice.paid,...", help="Of the events it gets; by default all.")
    @click.option("--description", default="", help="What you call it.")
    def create(data: Path, tenant: str, url: str, types: str, description: str) -> None:
        """Make an endpoint; print its id and its secret, which is never shown again."""
        run(data, "create_webhook", tenant=tenant, url=url, types=types, description=description)

    @webhooks.command("list")
    @data_option
    @_tenant
    def list_all(data: Path, tenant: str) -> None:
        """List the endpoints."""
        run(data, "list_webhooks", tenant=tenant)

    @webhooks.command("update")
    @data_option
    @_tenant
    @_endpoint
    @click.option("--url")
    @click.option("--types", metavar="invoice.paid,...", help="An empty text means all.")
    @click.option("--description")
    @click.option("--enable", "state", flag_value="enabled", default=None, help="Send to it again.")
    @click.option("--disable", "state", flag_value="disabled", help="Send nothing to it.")
    def update(data: Path, webhook_id: str, **changes: str | None) -> None:
        """Change an endpoint; what is not given stays."""
        run(data, "update_webhook", webhook_id=webhook_id, **changes)

    @webhooks.command("delete")
    @data_option
    @_tenant
    @_endpoint
    def delete(data: Path, tenant: str, webhook_id: str) -> None:
        """Delete an endpoint; what is on its way to it is cancelled."""
        run(data, "delete_webhook", tenant=tenant, webhook_id=webhook_id)

    @webhooks.command("rotate")
    @data_option
    @_tenant
    @_endpoint
    @click.option("--old-valid", "old_valid_s", metavar="SECONDS", default=int(OLD_SECRET_VALID.total_seconds()),
                  show_default=True, help="How long the old secret signs, too.")  # fmt: skip
    def rotate(data: Path, tenant: str, webhook_id: str, old_valid_s: int) -> None:
        """Give an endpoint another secret and print it. It is never shown again."""
        run(data, "rotate_webhook_secret", tenant=tenant, webhook_id=webhook_id, old_valid_s=old_valid_s)

    _delivery_commands(webhooks, run, data_option)
    return webhooks


def _delivery_commands(webhooks: click.Group, run: Callable[..., None], data_option: Callable[..., Any]) -> None:
    @webhooks.command("test")
    @data_option
    @_tenant
    @_endpoint
    def test(data: Path, tenant: str, webhook_id: str) -> None:
        """Send an endpoint an event of the type webhook.test."""
        run(data, "test_webhook", tenant=tenant, webhook_id=webhook_id)

    @webhooks.command("deliveries")
    @data_option
    @_tenant
    @_endpoint
    @click.option("--state", type=click.Choice([each.value for each in DeliveryState]), help="Only of this state.")
    @click.option("--limit", default=100, show_default=True)
    def deliveries(data: Path, tenant: str, webhook_id: str, state: str | None, limit: int) -> None:
        """List what was sent to an endpoint, the newest event first."""
        run(data, "list_webhook_deliveries", tenant=tenant, webhook_id=webhook_id, state=state, limit=limit)

    @webhooks.command("redeliver")
    @data_option
    @_tenant
    @_endpoint
    @click.argument("event_id", metavar="[EVENT]", required=False)
    @click.option("--since", metavar="INSTANT", help="All that did not arrive, such as since 2026-01-31T12:00:00Z.")
    @click.option("--also-delivered", is_flag=True, help="With --since: also what arrived.")
    def redeliver(data: Path, webhook_id: str, **which: Any) -> None:
        """Send an EVENT again, or all since an instant."""
        run(data, "redeliver_webhook", webhook_id=webhook_id, **which)


def outbox_commands(
    run: Callable[..., None], data_option: Callable[..., Any], publish: Callable[..., None]
) -> click.Group:
    """The commands of the outbox; `publish` publishes for a deployment."""

    @click.group()
    def outbox() -> None:
        """Events that wait to be told."""

    @outbox.command("publish")
    @click.option("--once", is_flag=True, help="Publish what is due, and end.")
    @click.option("--partitions", default=8, show_default=True, help="Of the topic billing.events, if it is missing.")
    @click.option("--replication", default=1, show_default=True, help="On how many brokers each record is, likewise.")
    def publish_all(once: bool, partitions: int, replication: int) -> None:
        """Publish a deployment's events to Kafka and webhooks until stopped. `serve` does so itself. Safe to kill."""
        publish(once=once, partitions=partitions, replication=replication)

    @outbox.command("status")
    @data_option
    def status(data: Path) -> None:
        """Show how far the events of each tenant are published."""
        run(data, "outbox_status")

    return outbox
