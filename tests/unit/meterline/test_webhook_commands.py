"""The commands of webhooks ask for operations that there are, with parameters that these take."""

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from meterline.operations import checked_parameters
from meterline.webhook_commands import outbox_commands, webhook_commands

data_option = click.option("--data", type=Path, default=Path("data"))


@pytest.mark.parametrize(
    ("command", "operation", "parameters"),
    [
        ("create https://x --types a,b", "create_webhook", {"tenant": "default", "url": "https://x", "types": "a,b", "description": ""}),
        ("list --tenant acme", "list_webhooks", {"tenant": "acme"}),
        ("update we_1 --enable", "update_webhook", {"tenant": "default", "webhook_id": "we_1", "url": None, "types": None, "description": None, "state": "enabled"}),
        ("update we_1 --disable --types=", "update_webhook", {"tenant": "default", "webhook_id": "we_1", "url": None, "types": "", "description": None, "state": "disabled"}),
        ("delete we_1", "delete_webhook", {"tenant": "default", "webhook_id": "we_1"}),
        ("rotate we_1", "rotate_webhook_secret", {"tenant": "default", "webhook_id": "we_1", "old_valid_s": 86400}),
        ("test we_1", "test_webhook", {"tenant": "default", "webhook_id": "we_1"}),
        ("deliveries we_1 --state failed", "list_webhook_deliveries", {"tenant": "default", "webhook_id": "we_1", "state": "failed", "limit": 100}),
        ("redeliver we_1 e1", "redeliver_webhook", {"tenant": "default", "webhook_id": "we_1", "event_id": "e1", "since": None, "also_delivered": False}),
        ("redeliver we_1 --since 2026-01-31 --also-delivered", "redeliver_webhook", {"tenant": "default", "webhook_id": "we_1", "event_id": None, "since": "2026-01-31", "also_delivered": True}),
    ],
)  # fmt: skip
def test_a_command_asks_for_an_operation(command: str, operation: str, parameters: dict[str, Any]) -> None:
    """Which takes what the command gives."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def run(_: Path, name: str, **given: Any) -> None:
        asked.append((name, given))

    result = CliRunner().invoke(webhook_commands(run, data_option), command.split())
    assert (result.exit_code, result.output) == (0, "")
    assert asked == [(operation, parameters)]
    assert checked_parameters(operation, parameters) == parameters


def test_the_outbox_is_published_and_shown() -> None:
    """By a deployment's process, and by an operation."""
    asked: list[Any] = []
    group = outbox_commands(
        lambda _, name, **given: asked.append((name, given)), data_option, lambda **options: asked.append(options)
    )
    assert CliRunner().invoke(group, ["publish", "--once"]).exit_code == 0
    assert CliRunner().invoke(group, ["status"]).exit_code == 0
    assert asked == [{"once": True, "partitions": 8, "replication": 1}, ("outbox_status", {})]
