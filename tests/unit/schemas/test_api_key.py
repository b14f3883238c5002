"""API keys: their form, what opens them, and what they may be called."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from schemas.api_key import (
    ApiKey,
    NewKey,
    Presented,
    Scope,
    TenantLimit,
    bearer_token,
    is_key_id,
    key_text,
    opens,
    presented_key,
    scopes_of,
    secret_hash,
)

TEXT = key_text(bytes(range(8)), bytes(range(32)))
NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOSTILE = [
    "", " ", "a b", "a'; DROP TABLE api_keys; --", 'a"', "a\r\nSet-Cookie: x=1", "a\n", "\n", "a\x00", "\x1b[31m", "a\u2028b", "$.a",
    "${jndi:ldap://x}", "../../etc/passwd", "\u202e", "x" * 65, "-rf", ".", "ünï", "%s%n", "\ud800",
]  # fmt: skip


def key() -> ApiKey:
    presented = presented_key(TEXT)
    assert presented
    return ApiKey(presented.id, "acme", "", frozenset({Scope.INGEST}), secret_hash(presented.secret), NOW)


def test_a_key_has_a_prefix_an_id_and_a_secret() -> None:
    """The parts come back as they went in."""
    presented = presented_key(TEXT)
    assert presented == Presented("0001020304050607", bytes(range(32)).hex())
    assert f"ml_{presented.id}_{presented.secret}" == TEXT
    assert is_key_id(presented.id)


@pytest.mark.parametrize(
    "text",
    [
        "", "ml_", TEXT[:-1], TEXT + "0", TEXT + "\n", " " + TEXT, TEXT.upper(), TEXT.replace("ml_", "xx_"), TEXT.replace("0", "\u0660"),
        TEXT[:-1] + "\x00", TEXT[:-1] + "g", TEXT + "," + TEXT, "ml_' OR 1=1 --_" + "0" * 64, *HOSTILE,
    ],
)  # fmt: skip
def test_what_is_nearly_a_key_is_none(text: str) -> None:
    """No other length, case, alphabet or end; so a key that comes further is plain ASCII of a known length."""
    assert presented_key(text) is None
    assert not is_key_id(text)


def test_only_the_whole_secret_opens_a_key() -> None:
    """Another secret, another id, a revoked key and no key do not."""
    stored = key()
    presented = presented_key(TEXT)
    assert presented
    assert opens(stored, presented)
    assert not opens(stored, presented._replace(secret="0" * 64))
    assert not opens(stored, presented._replace(id="f" * 16))
    assert not opens(replace(stored, revoked_at=NOW), presented)
    assert not opens(None, presented)
    assert TEXT[-64:] not in repr(stored)


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"), ("bearer abc", "abc"), ("BEARER   abc ", "abc"), ("Bearer", ""), ("Bearer ", ""), ("", None), ("Basic abc", None),
        ("Bearerabc", None), (" Bearer abc", None), ("Bearer\tabc", None), ("Bearer a b", "a b"),
    ],
)  # fmt: skip
def test_the_token_of_a_header(header: str, token: str | None) -> None:
    """The scheme in any case, then blanks, then the token."""
    assert bearer_token(header) == token


@pytest.mark.parametrize("text", HOSTILE)
def test_a_tenant_is_a_plain_word(text: str) -> None:
    """Nothing that means something to a shell, a statement, a log or a terminal; so it is nowhere escaped."""
    with pytest.raises(ValidationError):
        NewKey(tenant=text, scopes=("ingest",))
    with pytest.raises(ValidationError):
        TenantLimit(tenant=text, events_per_second=1)


@pytest.mark.parametrize("text", ["a", "A.b_c-9", "9" * 64, "default"])
def test_tenants_that_are_allowed(text: str) -> None:
    """Letters, digits, dots, dashes and underscores."""
    assert NewKey(tenant=text).tenant == text


def test_a_name_is_printable_and_kept_as_it_is() -> None:
    """Quotes, markup and other scripts are text like any other; control characters would change a list of keys."""
    for text in ("", "O'Brien\"; DROP TABLE x; --", "<b>$.a</b> ünï 日本", "x" * 200):
        assert NewKey(name=text).name == text
    for text in ("a\r\nb", "\x00", "\x1b[2J", "\u202e", "\u2028", "\ud800", "x" * 201):
        with pytest.raises(ValidationError):
            NewKey(name=text)


@pytest.mark.parametrize("names", [[], ["root"], ["ingest", "root"], ["INGEST"], [""], ["ingest\n"]])
def test_scopes_are_a_closed_list(names: list[str]) -> None:
    """What is no scope is named, beside what is allowed."""
    with pytest.raises(ValueError, match="allowed: one or more of ingest, query, admin"):
        scopes_of(names)
