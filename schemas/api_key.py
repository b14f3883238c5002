"""API keys: how a key reads, what it may do, and how a presented one is compared with what is stored.

A key is `ml_<id>_<secret>`. The id is public: it names the key in lists and logs. The secret is 256 random bits, shown
once; only its SHA-256 is stored. Owns that a key is found by its whole text and never by a part of it, and that what
a tenant or a key is called cannot break a log line, a terminal or a statement.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from schemas.tenant import DEFAULT_TENANT, EVENTS_PER_SECOND_MAX

ID_BYTES = 8
SECRET_BYTES = 32
NAME_LENGTH_MAX = 200

TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
"""Tenants that keys are for. Direct producers may name others, up to 512 bytes of any text; those have no keys."""

_KEY = re.compile(r"ml_([0-9a-f]{16})_([0-9a-f]{64})", re.ASCII)
_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)


class Scope(StrEnum):
    """What a key is for. None of them includes another."""

    INGEST = "ingest"
    QUERY = "query"
    ADMIN = "admin"


class Presented(NamedTuple):
    """A key as a request shows it."""

    id: str
    secret: str


@dataclass(frozen=True)
class ApiKey:
    """A key as it is stored: all but the secret."""

    id: str
    tenant: str
    name: str
    scopes: frozenset[Scope]
    secret_hash: bytes
    created_at: datetime
    revoked_at: datetime | None = None
    events_per_second: int | None = None
    """What its tenant may send; None: as the gateway says."""


@dataclass(frozen=True)
class Access:
    """Who makes a request, and what it may do. A request's tenant is always this one's, whatever else it says."""

    tenant: str
    scopes: frozenset[Scope]
    key_id: str | None = None
    """None for a request that needs no key."""
    events_per_second: int | None = None
    has_local_key: bool = False
    """Whether its key is the one that a server leaves to the commands beside it."""


def key_text(id_bytes: bytes, secret: bytes) -> str:
    """The key that is made of so many random bytes.

    >>> key_text(bytes(8), bytes(32))[:30]
    'ml_0000000000000000_0000000000'
    """
    assert (len(id_bytes), len(secret)) == (ID_BYTES, SECRET_BYTES), "a short key can be guessed"
    return f"ml_{id_bytes.hex()}_{secret.hex()}"


def presented_key(text: str) -> Presented | None:
    """The parts of a key; None when the text is none.

    >>> presented_key("ml_0123") is None
    True
    """
    match = _KEY.fullmatch(text)
    return Presented(match[1], match[2]) if match else None


def bearer_token(header: str) -> str | None:
    """The token of an Authorization header, as RFC 6750 has it; None when the header is of another kind.

    >>> bearer_token("bearer  abc"), bearer_token("Basic abc")
    ('abc', None)
    """
    scheme, _, token = header.partition(" ")
    return token.strip(" ") if scheme.lower() == "bearer" else None


def secret_hash(secret: str) -> bytes:
    """The SHA-256 of a key's secret, as it is stored.

    >>> secret_hash("0" * 64).hex()[:12]
    '60e05bd1b195'
    """
    return hashlib.sha256(secret.encode("ascii")).digest()


def opens(key: ApiKey | None, presented: Presented) -> bool:
    """Whether a presented key is this one, and is in force. How long it takes says nothing about the secret."""
    return (
        key is not None
        and key.revoked_at is None
        and key.id == presented.id
        and hmac.compare_digest(secret_hash(presented.secret), key.secret_hash)
    )


def is_key_id(text: str) -> bool:
    """Whether a text can be the id of a key."""
    return _ID.fullmatch(text) is not None


def scopes_of(names: Iterable[str]) -> frozenset[Scope]:
    """The scopes of these names. Raises ValueError that lists what is allowed, also for none at all.

    >>> sorted(scopes_of(["query", "ingest"]))
    [<Scope.INGEST: 'ingest'>, <Scope.QUERY: 'query'>]
    """
    wanted = list(names)
    if not wanted or set(wanted) - set(Scope):
        raise ValueError(f"scopes: {', '.join(wanted) or 'none'}; allowed: one or more of {', '.join(Scope)}")
    return frozenset(Scope(name) for name in wanted)


def _tenant(text: str) -> str:
    if not TENANT.fullmatch(text):
        raise ValueError("allowed: 1 to 64 letters, digits, dots, dashes and underscores, a letter or digit first")
    return text


def _name(text: str) -> str:
    if not text.isprintable():
        raise ValueError("allowed: printable characters, without line ends")
    return text


class NewKey(BaseModel):
    """What a key is to be."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    tenant: Annotated[str, AfterValidator(_tenant)] = DEFAULT_TENANT
    name: Annotated[str, Field(max_length=NAME_LENGTH_MAX), AfterValidator(_name)] = ""
    scopes: Annotated[tuple[str, ...], Field(max_length=16)] = ()

    @property
    def scope_set(self) -> frozenset[Scope]:
        """The scopes. Raises ValueError as `scopes_of` does."""
        return scopes_of(self.scopes)


class TenantLimit(BaseModel):
    """How many events a tenant may send a second; None: as the gateway says."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    tenant: Annotated[str, AfterValidator(_tenant)]
    events_per_second: Annotated[int, Field(ge=1, le=EVENTS_PER_SECOND_MAX)] | None
