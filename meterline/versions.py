"""Optimistic locking over HTTP: what is changed is the version that was read, or nothing is changed."""

from http import HTTPStatus

from starlette.requests import Request

from ingest.request import RefusedError


def etag_of(version: int) -> str:
    """The ETag of a version of something.

    >>> etag_of(7)
    '"7"'
    """
    return f'"{version}"'


def refuse_other_version(request: Request, version: int, *, required: bool = False) -> None:
    """Raises RefusedError (412) when the request's If-Match does not name this version, 428 where it has to name one.

    `*` names any version; a weak tag names none, as RFC 9110 has it.
    """
    given = request.headers.getlist("if-match")
    if not given:
        if required:
            detail = 'If-Match is needed: the ETag of what was read, such as "7"'
            raise RefusedError(HTTPStatus.PRECONDITION_REQUIRED, detail)
        return
    tags = [tag.strip() for header in given for tag in header.split(",")]
    if etag_of(version) not in tags and tags != ["*"]:
        refused = RefusedError(HTTPStatus.PRECONDITION_FAILED, "it was changed since it was read; read it again")
        refused.headers["ETag"] = etag_of(version)
        raise refused
