"""The HTTP API's description, `openapi.yaml`, as a route: OpenAPI 3.1, for people's tools and client generators.

Owns that a server describes the routes that it has, and no others.
"""

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from functools import cache
from importlib.resources import files
from typing import Any

import orjson
import yaml
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

PATH = "/api/swagger.json"  # where OpenMeter has it
METHODS = ("get", "put", "post", "delete", "patch")

_PARAMETER = re.compile(r"\{[^}]*\}")


def description_route(names: AbstractSet[str]) -> Route:
    """The route that describes the routes of these names, `GET /api/v1/meters/{}`, and itself."""
    described = frozenset({*names, f"GET {PATH}"})

    async def describe(_: Request) -> Response:
        return Response(await run_in_threadpool(_body, described), media_type="application/json")

    return Route(PATH, describe, methods=["GET"])


def without_names(path: str) -> str:
    """A path with `{}` for each of its parameters, whatever their names.

    >>> without_names("/api/v1/keys/{id:str}")
    '/api/v1/keys/{}'
    """
    return _PARAMETER.sub("{}", path)


def document() -> dict[str, Any]:
    """The whole description: of all routes that some server has."""
    parsed: dict[str, Any] = yaml.safe_load(files("meterline").joinpath("openapi.yaml").read_bytes())
    return parsed


def operations_of(described: Mapping[str, Any]) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """The operations of a description by their names, each with its method and path.

    >>> list(operations_of({"paths": {"/keys/{id}": {"delete": {}}}}).items())
    [('DELETE /keys/{}', ('delete', '/keys/{id}', {}))]
    """
    return {
        f"{method.upper()} {without_names(path)}": (method, path, operations[method])
        for path, operations in described["paths"].items()
        for method in METHODS
        if method in operations
    }


def narrowed(described: Mapping[str, Any], names: AbstractSet[str]) -> dict[str, Any]:
    """A description of the operations of these names alone."""
    paths: dict[str, Any] = {}
    for name, (method, path, operation) in operations_of(described).items():
        if name in names:
            paths.setdefault(path, {})[method] = operation
    return {**described, "paths": paths}


@cache
def _body(names: frozenset[str]) -> bytes:
    return orjson.dumps(narrowed(document(), names), option=orjson.OPT_INDENT_2)
