"""The gateway that one writes in an hour: a FastAPI route that parses the events and sends each of them.

All events of a request are on their way at the same time; the answer is sent when the broker has confirmed them all,
with the same acks, idempotence and compression as Meterline's gateway. Nothing is checked but that the body is JSON.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer
from fastapi import FastAPI, Request, Response

TOPIC = os.environ["PEER_TOPIC"]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run the producer as long as the application."""
    app.state.producer = AIOKafkaProducer(
        bootstrap_servers=os.environ["PEER_KAFKA"], acks="all", enable_idempotence=True, compression_type="lz4",
        max_batch_size=1 << 20, max_request_size=2 << 20,
    )  # fmt: skip
    async with app.state.producer:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/api/v1/events")
async def ingest(request: Request) -> Response:
    """Take one event or an array of them."""
    body = json.loads(await request.body())
    events = body if isinstance(body, list) else [body]
    send = request.app.state.producer.send_and_wait
    await asyncio.gather(*(send(TOPIC, json.dumps(event).encode(), key=event["id"].encode()) for event in events))
    return Response(status_code=204)
