"""A refusal of a request as application/problem+json (RFC 7807): its shape, the same for every route."""

from http import HTTPStatus
from typing import Any

PROBLEM_TYPE = "application/problem+json"


class ProblemError(ValueError):
    """A request cannot be answered, with the HTTP status and the reason in words."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def problem(status: HTTPStatus, detail: str, instance: str, extensions: dict[str, Any] | None = None) -> dict[str, Any]:
    """The body of a refusal.

    >>> problem(HTTPStatus.NOT_FOUND, "no meter x", "urn:request:1")["title"]
    'Not Found'
    """
    return {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "instance": instance,
        "extensions": extensions or {},
    }
