"""What billing refuses over HTTP, and how it says so: each error of the books is one status, the same for all routes.

Owns that a rule which the database checks at the commit is told as a refusal, and not as a failure: a change calls
`check_now` before it answers.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, TypeVar

import orjson
import sqlalchemy as sa
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from ingest.request import RefusedError
from invoicing.credit_notes.amounts import NotCreditableError
from invoicing.invoices.lifecycle import NotTakenError
from invoicing.invoices.store import ChangedMeanwhileError
from invoicing.ledger.store import OtherContentError
from invoicing.settlement.app import ClosedPeriodError, NoCreditError
from meterline.idempotency import Handler, body_of
from schemas.api_key import Access
from schemas.configuration import ConfigurationError, Fault, faults_of

_CHECK_NOW = "SET CONSTRAINTS check_at_commit, check_ledger_at_commit IMMEDIATE"

Model = TypeVar("Model", bound=BaseModel)


def told(handler: Handler) -> Handler:
    """The handler, whose refusals say what is allowed."""

    def answered(request: Request, connection: sa.Connection) -> Response:
        try:
            return handler(request, connection)
        except (RefusedError, sa.exc.DataError):  # a text that PostgreSQL has no place for is told elsewhere
            raise
        except ConfigurationError as error:
            raise _faulty(error.faults) from None
        except LookupError as error:
            raise RefusedError(HTTPStatus.NOT_FOUND, str(error)) from None
        except NotTakenError as error:
            raise RefusedError(HTTPStatus.CONFLICT, str(error), allowed=list(error.allowed)) from None
        except (OtherContentError, ChangedMeanwhileError, ClosedPeriodError, NoCreditError) as error:
            raise RefusedError(HTTPStatus.CONFLICT, str(error)) from None
        except NotCreditableError as error:
            raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
        except sa.exc.IntegrityError as error:  # a rule of the books, such as a period that was closed meanwhile
            reason = str(error.orig).splitlines()[0]
            raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, reason) from None
        except (ValueError, OverflowError) as error:  # an instant outside of the calendar overflows
            raise RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from None

    return answered


def check_now(connection: sa.Connection) -> None:
    """Let the checks of the commit run, while they can still be told of. Raises IntegrityError."""
    connection.exec_driver_sql(_CHECK_NOW)


def parsed(request: Request, model: type[Model]) -> Model:
    """The body of a request. Raises RefusedError that names every fault."""
    try:
        return model.model_validate(body_of(request))
    except ValidationError as error:
        raise _faulty(faults_of(error, "the request")) from None


def asked(request: Request, *allowed: str) -> dict[str, str]:
    """The parameters of a query. Raises RefusedError for one that is not known."""
    found = dict(request.query_params)
    if unknown := sorted(set(found) - set(allowed)):
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"{', '.join(unknown)}; allowed: {', '.join(allowed)}")
    return found


def tenant_of(request: Request) -> str:
    """Whose books a request is about: its key's tenant's."""
    access: Access = request.state.access
    return access.tenant


def who_asks(request: Request) -> str:
    """How the books name whoever asked for a change."""
    access: Access = request.state.access
    return f"key {access.key_id}" if access.key_id else "api"


def json_answer(value: Any, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """An answer of JSON that nobody keeps."""
    headers = {"Cache-Control": "no-store"}
    return Response(orjson.dumps(value), status_code=status, media_type="application/json", headers=headers)


def _faulty(faults: Sequence[Fault]) -> RefusedError:
    listed = [
        {"field": _text(fault.key), "value": _text(fault.value), "message": _text(fault.allowed)} for fault in faults
    ]
    detail = "; ".join(_text(f"{fault.key}: {fault.allowed}") for fault in faults)
    return RefusedError(HTTPStatus.BAD_REQUEST, detail, validationErrors=listed)


def _text(said: str) -> str:
    """A text that UTF-8 can have: half of a surrogate pair becomes a question mark."""
    return said.encode("utf-8", "replace").decode()
