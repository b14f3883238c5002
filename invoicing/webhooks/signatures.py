"""Signatures of webhooks, as the Standard Webhooks specification has them. Core.

Owns that a signature covers the id, the instant and every byte of the body, and that while a secret is being replaced
a webhook is signed with each one that is valid.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence

PREFIX = "whsec_"
SECRET_BYTES = 32
TOLERANCE_S = 300
_SECRET = re.compile(r"whsec_([A-Za-z0-9+/]{32,86}={0,2})", re.ASCII)
_INSTANT = re.compile(r"[0-9]{1,12}", re.ASCII)


class Secret(str):
    """A secret's text. Where values are shown for debugging, as in the error of a statement, it is not."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Not the secret."""
        return "'whsec_...'"


def secret_text(random_bytes: bytes) -> Secret:
    """The secret that is made of so many random bytes.

    >>> print(secret_text(bytes(32)))
    whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
    """
    assert len(random_bytes) == SECRET_BYTES, "a short secret can be guessed"
    return Secret(PREFIX + base64.b64encode(random_bytes).decode())


def signed_headers(webhook_id: str, at_s: int, body: bytes, secrets: Sequence[str]) -> dict[str, str]:
    """The headers of a webhook that is sent at an instant, in seconds since 1970: one signature for each secret.

    >>> headers = signed_headers("msg_1", 1614265330, b'{"test": 2432232314}', [secret_text(bytes(32))])
    >>> headers["webhook-signature"]
    'v1,Bl1a0SVt78DCV06Rvr6oSEMbCaFysVu27en9cW0mNBI='
    """
    assert secrets, "a webhook is never sent unsigned"
    assert "." not in webhook_id, "else two webhooks could have the same signature"
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(_signature(secret, webhook_id, str(at_s), body) for secret in secrets),
    }


def is_signed(headers: Mapping[str, str], body: bytes, secret: str, *, now_s: int) -> bool:
    """Whether a webhook with these headers (names in lower case) and body was signed with the secret, just now."""
    webhook_id, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not webhook_id or not _INSTANT.fullmatch(at) or abs(now_s - int(at)) > TOLERANCE_S:
        return False
    expected = _signature(secret, webhook_id, at, body).encode()
    signatures = headers.get("webhook-signature", "").encode(errors="surrogateescape").split(b" ")
    return any([hmac.compare_digest(expected, each) for each in signatures])  # noqa: C419  all, so that time says nothing


def _signature(secret: str, webhook_id: str, at: str, body: bytes) -> str:
    match = _SECRET.fullmatch(secret)
    assert match, "not one of our secrets"
    signed = b"%s.%s.%s" % (webhook_id.encode(errors="surrogateescape"), at.encode(), body)
    return "v1," + base64.b64encode(hmac.digest(base64.b64decode(match[1]), signed, hashlib.sha256)).decode()
