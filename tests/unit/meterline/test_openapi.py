"""The description of the HTTP API: valid, of every route there is and of no other, in the words of the code's models."""

import asyncio
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from starlette.applications import Starlette
from starlette.routing import Route

from aggregation.event_filter import EventFilter, TimeFilter
from aggregation.listing import LIST_MAX, EventsPageQuery, EventsQuery, RejectionsQuery
from ingest.request import BATCH, EITHER, EVENTS_MAX, FAULTS_LISTED_MAX, SINGLE
from invoicing.invoices.manual import LINES_MAX, Earns, ManualInvoice, ManualLine
from invoicing.reconciliation.matching import Outcome
from invoicing.reconciliation.store import FLAGS
from invoicing.wallets.lots import LOTS, MoveKind
from invoicing.wallets.store import HISTORY, WALLETS
from meterline.access import OPEN, OPEN_ON_LOOPBACK, RULES, UNLISTED, path_of
from meterline.formats import FORMATS
from meterline.idempotency import KEY_LENGTH_MAX
from meterline.openapi import METHODS, document, operations_of
from meterline.operations import OPERATIONS, checked_parameters
from meterline.webhooks_api import LIMIT_MAX
from schemas.api_key import NewKey, Scope
from schemas.delivery import OLD_SECRET_VALID, DeliveryState
from schemas.domain_event import EventType
from schemas.invoice import INVOICES, LINES, ApplicationKind, InvoiceKind, PaymentStatus, State
from schemas.meter import DESCRIBING, Aggregation, Meter
from schemas.outcomes import Reason
from schemas.payment import (
    MINOR_MAX,
    PRIORITY_MAX,
    CreditApplication,
    FailedPayment,
    Payment,
    Refund,
    Review,
    Settlement,
    TopUp,
    WriteOff,
)
from schemas.payment import Reason as PaymentReason
from schemas.problem import PROBLEM_TYPE
from schemas.text_filter import TextFilter
from schemas.usage_query import LISTED_MAX, UsageQuery, WindowSize
from schemas.webhook import ENDPOINTS_MAX, OLD_SECRET_VALID_MAX, EndpointChange, NewEndpoint
from tests.e2e.test_keys import applications

DOCUMENT = document()
SCHEMAS = DOCUMENT["components"]["schemas"]
OPERATIONS_DESCRIBED = operations_of(DOCUMENT)
REGISTRY = Registry().with_resource("urn:api", Resource(contents=DOCUMENT, specification=DRAFT202012))


def routed(app: Starlette) -> set[str]:
    """The method and path of every route of an application; HEAD comes with GET."""
    found = set()
    for route in app.routes:
        assert isinstance(route, Route), "a route of another kind: describe it, and look for it here"
        found |= {f"{method} {path_of(route)}" for method in route.methods or METHODS if method != "HEAD"}
    return found


def served(app: Starlette) -> Any:
    """The description as an application serves it, without a key."""

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get("/api/swagger.json")

    answer = asyncio.run(asked())
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    return answer.json()


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    """A part of the description, or, if it is only a reference, what it refers to."""
    reference = part.get("$ref")
    if reference is None:
        return part
    found: Any = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return resolved(found)


def parameters_of(name: str) -> dict[str, dict[str, Any]]:
    """The parameters of an operation that stand in a URL's query, by name."""
    listed = map(resolved, OPERATIONS_DESCRIBED[name][2].get("parameters", []))
    return {each["name"]: each for each in listed if each["in"] == "query"}


def test_it_is_openapi() -> None:
    """By the specification's own schema; each operation has a name of its own."""
    OpenAPIV31SpecValidator(DOCUMENT).validate()
    ids = [operation["operationId"] for _, _, operation in OPERATIONS_DESCRIBED.values()]
    assert len(set(ids)) == len(ids)
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert (DOCUMENT["info"]["version"], DOCUMENT["info"]["license"]["name"]) == (
        project["version"],
        project["license"],
    )


def test_no_route_is_missing_and_none_is_made_up() -> None:
    """In both ways to run, a server describes exactly its routes; together they are all that is written."""
    everything = set()
    for app in applications():
        description = served(app)
        OpenAPIV31SpecValidator(description).validate()
        assert set(operations_of(description)) == routed(app)
        everything |= routed(app)
    assert set(OPERATIONS_DESCRIBED) == everything


def test_who_may_ask_is_what_the_guard_says() -> None:
    """The scope of each operation is the rule's; an open one needs no key."""
    for name, (_, _, operation) in OPERATIONS_DESCRIBED.items():
        scope = RULES.get(name, UNLISTED).scope
        if name in OPEN:
            assert operation["security"] == [], name
            continue
        assert operation["security"] == ([{}] if name in OPEN_ON_LOOPBACK else []) + [{"key": [scope]}], name
        assert {"401", "403", "503"} <= set(operation["responses"]), name


def test_the_words_are_those_of_the_models() -> None:
    """Parameters, properties, choices and bounds, where the code has them as values."""
    definition, query = SCHEMAS["MeterDefinition"], SCHEMAS["UsageQuery"]
    assert set(definition["properties"]) == set(Meter.model_json_schema(by_alias=True)["properties"])
    assert set(definition["required"]) == set(Meter.model_json_schema(by_alias=True)["required"])
    assert set(SCHEMAS["MeterDescription"]["properties"]) == DESCRIBING
    assert set(query["properties"]) == set(UsageQuery.model_json_schema(by_alias=True)["properties"])
    assert set(parameters_of("GET /api/v1/meters/{}/query")) == {*query["properties"], "decimals"}
    lists = {"v1/events": EventsQuery, "v2/events": EventsPageQuery, "v1/events/rejected": RejectionsQuery}
    for path, model in lists.items():
        parameters = parameters_of(f"GET /api/{path}")
        assert set(parameters) == set(model.model_json_schema(by_alias=True)["properties"])
        assert parameters["limit"]["schema"]["maximum"] == LIST_MAX
    assert set(SCHEMAS["EventFilter"]["properties"]) == set(EventFilter.model_json_schema(by_alias=True)["properties"])
    assert set(SCHEMAS["TimeFilter"]["properties"]) == {field.alias for field in TimeFilter.model_fields.values()}
    assert SCHEMAS["Reason"]["enum"] == list(Reason)
    assert set(SCHEMAS["TextFilter"]["properties"]) == {field.alias for field in TextFilter.model_fields.values()}
    assert set(SCHEMAS["NewKey"]["properties"]) == set(NewKey.model_fields)
    assert definition["properties"]["aggregation"]["enum"] == list(Aggregation)
    assert SCHEMAS["WindowSize"]["enum"] == list(WindowSize)
    assert SCHEMAS["Scope"]["enum"] == list(Scope)
    assert (SCHEMAS["Events"]["maxItems"], SCHEMAS["Names"]["maxItems"]) == (EVENTS_MAX, LISTED_MAX)
    sent = OPERATIONS_DESCRIBED["POST /api/v1/events"][2]
    assert set(sent["requestBody"]["content"]) == {SINGLE, BATCH, EITHER}
    problem = sent["responses"]["400"]["content"][PROBLEM_TYPE]["example"]
    assert problem["extensions"]["validationErrors"][0]["reason"] in list(Reason)
    assert (
        f"{FAULTS_LISTED_MAX:,}"
        in SCHEMAS["Problem"]["properties"]["extensions"]["properties"]["validationErrors"]["description"]
    )


def test_the_words_of_webhooks_are_those_of_the_models() -> None:
    """Types of events, states, properties and bounds."""
    assert SCHEMAS["EventTypes"]["items"]["enum"] == [each for each in EventType if each is not EventType.WEBHOOK_TEST]
    assert SCHEMAS["DeliveryState"]["enum"] == list(DeliveryState)
    assert set(SCHEMAS["NewWebhook"]["properties"]) == set(NewEndpoint.model_fields)
    assert set(SCHEMAS["WebhookChange"]["properties"]) == set(EndpointChange.model_fields)
    assert f"at most {ENDPOINTS_MAX} " in OPERATIONS_DESCRIBED["POST /api/v1/billing/webhooks"][2]["description"]
    assert parameters_of("GET /api/v1/billing/events")["limit"]["schema"]["maximum"] == LIMIT_MAX
    assert DOCUMENT["components"]["parameters"]["IdempotencyKey"]["schema"]["maxLength"] == KEY_LENGTH_MAX
    rotated = OPERATIONS_DESCRIBED["POST /api/v1/billing/webhooks/{}/secret"][2]["requestBody"]["content"]
    valid = rotated["application/json"]["schema"]["properties"]["oldValidSeconds"]
    assert (valid["default"], valid["maximum"]) == tuple(
        each.total_seconds() for each in (OLD_SECRET_VALID, OLD_SECRET_VALID_MAX)
    )


def test_the_words_of_invoices_are_those_of_the_models() -> None:
    """Keys that may be written, columns that are shown, choices and bounds."""
    written = [(SCHEMAS["ManualInvoice"], ManualInvoice), (SCHEMAS["ManualLine"], ManualLine)]
    for schema, model in written:
        assert set(schema["properties"]) == set(model.model_fields)
    assert SCHEMAS["ManualInvoice"]["properties"]["lines"]["maxItems"] == LINES_MAX
    assert SCHEMAS["ManualLine"]["properties"]["revenue"]["enum"] == list(Earns)
    shown = SCHEMAS["KeptInvoice"]["properties"]
    assert list(shown) == [*INVOICES, "lines"]
    assert [shown[name]["enum"] for name in ("kind", "state", "payment_status")] == [
        list(InvoiceKind), list(State), list(PaymentStatus),
    ]  # fmt: skip
    assert set(SCHEMAS["InvoiceLine"]["properties"]) == set(LINES) - {"tenant", "invoice_id", "customer"}


def test_the_words_of_the_life_of_invoices_are_those_of_the_models() -> None:
    """States, kinds, properties and bounds."""
    assert SCHEMAS["InvoiceState"]["enum"] == list(State)
    assert set(SCHEMAS["InvoiceHead"]["properties"]) == {*INVOICES, "due_minor"}
    assert set(SCHEMAS["Invoice"]["properties"]) == {*INVOICES, "due_minor", "lines", "applications", "changes"}
    assert SCHEMAS["InvoiceHead"]["properties"]["kind"]["enum"] == list(InvoiceKind)
    applications = SCHEMAS["Invoice"]["properties"]["applications"]["items"]["properties"]
    assert applications["kind"]["enum"] == list(ApplicationKind)
    models = {
        "InvoicePayment": Payment, "InvoicePaymentFailure": FailedPayment, "InvoiceCredit": CreditApplication,
        "InvoiceReason": PaymentReason, "InvoiceWriteOff": WriteOff, "CreditRefund": Refund, "WalletTopUp": TopUp,
        "SettlementFile": Settlement, "FlagReview": Review,
    }  # fmt: skip
    for name, model in models.items():
        described, own = SCHEMAS[name], model.model_json_schema()
        assert set(described["properties"]) == set(own["properties"]), name
        assert set(described.get("required", [])) == set(own.get("required", [])), name
    assert SCHEMAS["InvoicePayment"]["properties"]["amount_minor"]["maximum"] == MINOR_MAX
    assert parameters_of("GET /api/v1/billing/invoices/{}")["format"]["schema"]["enum"] == list(FORMATS)


def test_the_words_of_wallets_and_settlements_are_those_of_the_columns() -> None:
    """Columns that are shown, kinds, outcomes and bounds."""
    assert list(SCHEMAS["WalletLot"]["properties"]) == [name for name in LOTS if name != "customer"]
    assert list(SCHEMAS["WalletMove"]["properties"]) == list(HISTORY)
    assert SCHEMAS["WalletMove"]["properties"]["kind"]["enum"] == list(MoveKind)
    assert set(WALLETS) < set(SCHEMAS["Wallet"]["properties"])
    assert list(SCHEMAS["SettlementFlag"]["properties"]) == list(FLAGS)
    assert SCHEMAS["SettlementOutcome"]["enum"] == list(Outcome)
    assert SCHEMAS["WalletTopUp"]["properties"]["priority"]["maximum"] == PRIORITY_MAX
    assert SCHEMAS["WalletTopUp"]["properties"]["amount_minor"]["maximum"] == MINOR_MAX


def test_names_are_of_one_case_where_billing_speaks_as_its_documents_do() -> None:
    """No property and no parameter of a query is in camel case, but in events and webhooks."""
    camel = re.compile(r"[a-z][A-Z]")
    for name, (_, path, operation) in OPERATIONS_DESCRIBED.items():
        if "/billing/" in path and "/webhooks" not in path and "/events" not in path:
            names = set(parameters_of(name))
            asked = [operation.get("requestBody", {}), *map(resolved, operation["responses"].values())]
            names |= {each for part in asked for each in properties_of(part) if part}
            assert not [each for each in names if camel.search(each)], (name, names)


def properties_of(part: Any) -> Iterator[str]:
    """The names of all properties of a part of the description and what it refers to, but of problems."""
    if isinstance(part, list):
        for each in part:
            yield from properties_of(each)
    if isinstance(part, dict):
        if part.get("$ref") == "#/components/schemas/Problem":
            return
        if "$ref" in part:
            yield from properties_of(resolved(part))
        if isinstance(part.get("properties"), dict):
            yield from part["properties"]
        for key, each in part.items():
            if key not in {"example", "examples"}:
                yield from properties_of(each)


def test_the_operations_and_their_parameters_are_the_command_lines() -> None:
    """Every one is named, and what the examples give is what they take."""
    operation = OPERATIONS_DESCRIBED["POST /api/v1/operations/{}"][2]
    (name,) = operation["parameters"]
    assert name["schema"]["enum"] == sorted(OPERATIONS)
    for example, given in operation["requestBody"]["content"]["application/json"]["examples"].items():
        assert checked_parameters(example, given["value"]).items() >= given["value"].items()


def examples() -> Iterator[tuple[str, Any]]:
    """Every example, and a pointer to the schema that it is one of."""

    def look(part: Any, pointer: str) -> Iterator[tuple[str, Any]]:
        if isinstance(part, dict):
            if "schema" in part:
                named = [each["value"] for each in part.get("examples", {}).values()]
                for example in named + ([part["example"]] if "example" in part else []):
                    yield f"{pointer}/schema", example
            for key, inner in part.items():
                yield from look(inner, f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}")
        elif isinstance(part, list):
            for number, inner in enumerate(part):
                yield from look(inner, f"{pointer}/{number}")

    return look(DOCUMENT, "")


EXAMPLES = list(examples())


@pytest.mark.parametrize(
    ("pointer", "example"), EXAMPLES, ids=lambda value: value.rpartition("paths/")[2] if isinstance(value, str) else ""
)
def test_every_example_is_of_its_schema(pointer: str, example: Any) -> None:
    """Of bodies, parameters, headers and answers."""
    pointer = pointer.replace("{", "%7B").replace("}", "%7D")
    OAS31Validator({"$ref": f"urn:api#{pointer}"}, registry=REGISTRY).validate(example)


def test_there_are_examples_for_every_body() -> None:
    """What is to be sent is shown."""
    for name, (_, _, operation) in OPERATIONS_DESCRIBED.items():
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert content["examples"], name
    assert len(EXAMPLES) > 50
