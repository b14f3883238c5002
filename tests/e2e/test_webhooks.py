"""Webhooks of a running server, received and verified as docs/webhooks.md tells receivers to."""

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook

from schemas.domain_event import EventType
from tests.e2e.conftest import Server
from tests.e2e.test_bill import EXAMPLE
from tests.e2e.test_serve import event
from tests.servers.receiver import Received, receiving

GUIDE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
PATIENCE_S = 30


def documented() -> Callable[[dict[str, str], bytes, str], Any]:
    """The function that the guide gives to receivers."""
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    found: Callable[[dict[str, str], bytes, str], Any] = names["event_of"]
    return found


def test_the_guide_names_every_event() -> None:
    """And none that there is not."""
    listed = re.findall(r"`([a-z_]+\.[a-z_]+)`", GUIDE.partition("## The events")[2].partition("## The topic")[0])
    assert set(listed) == set(EventType)


def check_signed(one: Received, event_of: Callable[[dict[str, str], bytes, str], Any], secret: str) -> None:
    """A finalized invoice's webhook is signed, as the guide and another library check it; what was changed is not."""
    said = event_of(one.headers, one.body, secret)
    assert said == Webhook(secret).verify(one.body, one.headers)
    assert (said["id"], said["type"], said["data"]["period"]) == (one.id, "invoice.finalized", "2013-01")
    for headers, body in (
        (one.headers, one.body + b" "),
        ({**one.headers, "webhook-id": "x"}, one.body),
        ({**one.headers, "webhook-timestamp": "5"}, one.body),
    ):
        with pytest.raises(ValueError, match=r"not signed|old webhook"):
            event_of(headers, body, secret)


def test_a_bill_run_is_told_to_who_wants_to_know(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signed, repeated, told apart from what was changed on its way; and no secret is in the log."""
    monkeypatch.setenv("METERLINE_WEBHOOK_PRIVATE_TARGETS", "allow")
    event_of = documented()
    usage = tmp_path / "usage.ndjson"
    usage.write_text("\n".join(json.dumps(event(number)) for number in range(200)))
    server.start(verbose=True)

    async def play() -> None:
        async with receiving() as receiver, httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            arrived: asyncio.Queue[Received] = asyncio.Queue()

            def note(one: Received) -> web.Response:
                arrived.put_nowait(one)
                return web.Response(text="thanks")

            async def operate(name: str, **parameters: Any) -> str:
                answer = await client.post(f"/api/v1/operations/{name}", json=parameters)
                assert "failure" not in answer.text, answer.text
                return answer.text

            receiver.answers["/hooks"] = note
            await operate("apply_price_book", text=EXAMPLE, file="book")
            await operate("apply_contracts", text="contracts: []", file="contracts")
            await operate("import_usage", path=str(usage))
            created = await asyncio.to_thread(
                server.run, "webhooks", "create", f"{receiver.url}/hooks", "--types", "invoice.finalized"
            )
            webhook, secret = created.split()
            await operate("bill", period="2013-01")
            invoices = [await asyncio.wait_for(arrived.get(), PATIENCE_S) for _ in range(7)]
            for one in invoices:
                check_signed(one, event_of, secret)
            numbers = {json.loads(one.body)["data"]["number"] for one in invoices}
            assert numbers == {f"INV-{number:06d}" for number in range(1, 8)}
            await operate("bill", period="2013-01")  # which changes nothing, and tells nothing
            hook = f"/api/v1/billing/webhooks/{webhook}"
            first = invoices[0].id
            assert (await client.post(f"{hook}/deliveries/{first}/redeliver")).status_code == 202
            assert (await asyncio.wait_for(arrived.get(), PATIENCE_S)).id == first
            rotated = (await client.post(f"{hook}/secret", json={})).json()["secret"]
            told = (await client.post(f"{hook}/test")).json()["eventId"]
            test = await asyncio.wait_for(arrived.get(), PATIENCE_S)
            assert test.id == told
            assert event_of(test.headers, test.body, secret) == event_of(test.headers, test.body, rotated)
            assert (await client.get(f"/api/v1/billing/events/{told}")).content == test.body
            listed = await asyncio.to_thread(server.run, "webhooks", "deliveries", webhook, "--state", "delivered")
            assert listed.count("invoice.finalized") == 7
            assert "disabled" in await operate(
                "update_webhook", tenant="default", webhook_id=webhook, url=None, types=None, description=None,
                state="disabled",
            )  # fmt: skip
            assert "by hand" in await operate("list_webhooks", tenant="default")
            assert (await client.post(f"{hook}/test")).status_code == 400
            assert "deleted" in await operate("delete_webhook", tenant="default", webhook_id=webhook)
            assert '"8"' in await operate("outbox_status")
            assert await asyncio.to_thread(server.stop) == 0
            assert arrived.empty()
            log = server.log.read_text()
            assert secret not in log
            assert rotated not in log
            assert "Traceback" not in log

    asyncio.run(play())
