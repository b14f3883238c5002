"""Laws of signatures: what was signed is taken, and with any bit changed it is not. By us and by the Standard Webhooks library."""

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from invoicing.webhooks.signatures import TOLERANCE_S, is_signed, secret_text, signed_headers

secrets = st.binary(min_size=32, max_size=32).map(secret_text)
ids = st.text("0123456789abcdef_", min_size=1, max_size=40)
bodies = st.text(st.characters(codec="utf-8"), max_size=300).map(str.encode)
instants = st.integers(10**9, 10**10)
NAMES = ("webhook-id", "webhook-timestamp", "webhook-signature")


def flipped(value: bytes, bit: int) -> bytes:
    """The value with one bit the other way round."""
    place = bit % (len(value) * 8)
    changed = bytearray(value)
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


@given(ids, instants, bodies, secrets, secrets)
def test_what_is_signed_is_taken(webhook_id: str, at_s: int, body: bytes, old: str, new: str) -> None:
    """With each of two secrets, in any order, within five minutes either way, and not later."""
    headers = signed_headers(webhook_id, at_s, body, [new, old])
    for secret in (old, new):
        assert is_signed(headers, body, secret, now_s=at_s)
        assert is_signed(headers, body, secret, now_s=at_s + TOLERANCE_S)
        assert is_signed(headers, body, secret, now_s=at_s - TOLERANCE_S)
        assert not is_signed(headers, body, secret, now_s=at_s + TOLERANCE_S + 1)
        assert not is_signed(headers, body, secret, now_s=at_s - TOLERANCE_S - 1)
    other = secret_text(flipped(base64.b64decode(old.removeprefix("whsec_")), 7))
    assert is_signed(headers, body, other, now_s=at_s) == (other == new)


@given(ids, instants, bodies, secrets, st.integers(0, 10**6), st.sampled_from(["body", *NAMES]))
def test_a_flipped_bit_is_refused(webhook_id: str, at_s: int, body: bytes, secret: str, bit: int, where: str) -> None:
    """In the body or in any header, wherever the bit stands."""
    headers = signed_headers(webhook_id, at_s, body, [secret])
    if where == "body":
        changed_body = flipped(body, bit) if body else b"\x00"
        assert not is_signed(headers, changed_body, secret, now_s=at_s)
    else:
        changed = flipped(headers[where].encode(), bit).decode("utf-8", errors="surrogateescape")
        assert not is_signed({**headers, where: changed}, body, secret, now_s=at_s)
        assert not is_signed({name: text for name, text in headers.items() if name != where}, body, secret, now_s=at_s)


@given(ids, bodies, secrets, secrets, st.integers(0, 10**6))
def test_the_library_takes_what_we_sign_and_refuses_what_is_changed(
    webhook_id: str, body: bytes, old: str, new: str, bit: int
) -> None:
    """While a secret is replaced, receivers with either one take it; a changed body, id, instant or signature, none."""
    headers = signed_headers(webhook_id, int(datetime.now(UTC).timestamp()), body, [new, old])
    for secret in (old, new):
        Webhook(secret).verify(body, headers, json_parse=False)
    one = signed_headers(webhook_id, int(headers["webhook-timestamp"]), body, [old])
    digest = base64.b64decode(one["webhook-signature"].removeprefix("v1,"))
    changes = [
        {**one, "webhook-id": flipped(webhook_id.encode(), bit // 8 * 8).decode()},
        {**one, "webhook-timestamp": str(int(one["webhook-timestamp"]) ^ 1)},
        {**one, "webhook-signature": "v1," + base64.b64encode(flipped(digest, bit)).decode()},
    ]
    for changed in changes:
        with pytest.raises(WebhookVerificationError):
            Webhook(old).verify(body, changed, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(old).verify(body + b" ", one, json_parse=False)


def test_an_unsigned_webhook_is_never_made() -> None:
    """Neither without a secret, nor with an id that could be taken for another one with its instant."""
    with pytest.raises(AssertionError):
        signed_headers("a", 1, b"", [])
    with pytest.raises(AssertionError):
        signed_headers("a.1", 1, b"", [secret_text(bytes(32))])
