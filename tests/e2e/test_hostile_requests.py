"""What hostile requests come to, of somebody who has a key: nothing breaks, nothing is forged, and no secret is kept."""

import json
import socket
from urllib.parse import quote, urlsplit

import pytest

from schemas.api_key import TENANT
from tests.e2e.keyed import Keyed, is_problem
from tests.e2e.keyed import keyed as keyed_server
from tests.e2e.test_serve import BATCH, event

keyed = keyed_server
FORGED = "a\nINFO forged line"
HOSTILE = [
    "'; DROP TABLE api_keys; --", '"', "\\", "' OR '1'='1", "$.a[?(@.b)]", "a\r\nSet-Cookie: x=1", FORGED, "\x00", "a\x00b",
    "%00", "%0d%0aX: y", "../../etc/passwd", "${jndi:ldap://x}", "{{7*7}}", "<script>", "\x1b[2J", "\u202e", "\u2028", "ünï\U0001f4a9", "x" * 6000,
    "", " ", "-1", "null", "%s%n",
]  # fmt: skip


def escaped(text: str) -> bytes:
    """What of a text may stand in a header, as a client without scruples sends it."""
    return text.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: quote(text)[:20])
def test_hostile_texts_are_refused_or_kept_as_they_are(keyed: Keyed, text: str) -> None:
    """In every field, path and header: never a 5xx, never another header, and what is stored is what was sent."""
    admin = keyed.all
    answers = []
    made = keyed.ask("POST", "/api/v1/keys", admin, json={"name": text, "scopes": ["query"]})
    answers.append(made)
    if made.status_code == 201:
        assert made.json()["name"] == text
        assert text in [each["name"] for each in keyed.ask("GET", "/api/v1/keys", admin).json()]
    else:
        assert is_problem(made, 400)
    answers += [
        keyed.ask("POST", "/api/v1/keys", admin, json={"tenant": text, "scopes": ["query"]}),
        keyed.ask("POST", "/api/v1/keys", admin, json={"scopes": [text]}),
        keyed.ask("POST", "/api/v1/keys", admin, json={"scopes": text}),
        keyed.ask("POST", "/api/v1/keys", admin, json={text: text, "scopes": ["query"]}),
        keyed.ask("POST", "/api/v1/keys", admin, content=escaped(text), headers={"Content-Type": "application/json"}),
        keyed.ask("DELETE", f"/api/v1/keys/{quote(text, safe='')}", admin),
        keyed.ask("POST", f"/api/v1/operations/{quote(text, safe='')}", admin, json={}),
        keyed.ask("GET", "/api/v1/keys", admin, params={"id": text}),
        keyed.ask("POST", "/api/v1/operations/show_invoice", admin, json={"number": 5}),
    ]
    assert all(answer.status_code in range(300, 500) for answer in answers[1:-2])  # 307: a path that ends in a slash
    assert answers[-1].status_code == 400
    for operation, parameters in [
        ("show_invoice", {"number": text}), ("list_invoices", {"period": text}), ("show_usage", {"period": text}), ("bill", {"period": text}),
        ("list_keys", {"tenant": text}), ("revoke_key", {"key_id": text}), ("list_rejections", {"reason": text, "limit": 1, "as_json": False}),
        ("limit_tenant", {"tenant": text, "events_per_second": 1}), ("create_key", {"tenant": text, "scope": "query", "name": ""}),
    ]:  # fmt: skip
        answer = keyed.ask("POST", f"/api/v1/operations/{operation}", admin, json=parameters)
        assert answer.status_code == 200, operation
        kinds = [json.loads(line)["kind"] for line in answer.content.splitlines()]
        assert kinds, operation
        assert operation.startswith("list") or kinds[-1] == "failure" or TENANT.fullmatch(text), operation
        answers.append(answer)
    for field in ("id", "source", "subject", "type", "tenant", "time", "specversion", "note"):
        sent = keyed.ask("POST", "/api/v1/events", keyed.acme, json=[event(7000, **{field: text})], headers=BATCH)
        assert sent.status_code == 204 or is_problem(sent, 400), field
        answers.append(sent)
    assert not any("x" in answer.headers or "set-cookie" in answer.headers for answer in answers)
    assert not any(answer.status_code >= 500 for answer in answers)


HEADERS = (
    "Authorization",
    "Content-Type",
    "Content-Encoding",
    "Content-Length",
    "Transfer-Encoding",
    "Host",
    "X-Forwarded-For",
    "Accept",
    "Expect",
)


@pytest.mark.parametrize("name", HEADERS)
def test_hostile_headers_are_refused(keyed: Keyed, name: str) -> None:
    """Bytes that no client library would send: the answer is a 4xx or the end of the connection, and never a 5xx."""
    host = urlsplit(keyed.url)
    for text in [*HOSTILE, "Bearer \xff", "Bearer " + keyed.all + "\x00", "1e3", "+5", "99999999999999999999", "0x10"]:
        head = {
            "Host": "x",
            "Authorization": f"Bearer {keyed.all}",
            "Content-Type": "application/json",
            "Content-Length": "2",
        }
        lines = b"".join(
            each.encode() + b": " + escaped(value) + b"\r\n" for each, value in {**head, name: text}.items()
        )
        with socket.create_connection((host.hostname, host.port), timeout=5) as connection:
            connection.sendall(b"POST /api/v1/events HTTP/1.1\r\n" + lines + b"Connection: close\r\n\r\n{}")
            connection.shutdown(socket.SHUT_WR)
            answer = connection.makefile("rb").read()
        assert answer[:11] in {b"", b"HTTP/1.1 40", b"HTTP/1.1 41"}, (text, answer)
        assert b"\r\nSet-Cookie" not in answer
        assert b"\r\nX: y" not in answer


def test_bodies_that_are_no_parameters_are_refused(keyed: Keyed) -> None:
    """Of every JSON kind, too long, or of another content type."""
    for path in ("/api/v1/keys", "/api/v1/operations/show_invoice"):
        for body in (
            b"",
            b"{",
            b"[]",
            b"5",
            b"null",
            b'"x"',
            b'{"a":1}',
            b'{"scopes":null}',
            b'{"scopes":[null]}',
            b'{"name":5,"scopes":["query"]}',
            b'{"number":"\\ud800"}',
            b"\xff",
            b"[" * 5000,
        ):
            answer = keyed.ask("POST", path, keyed.all, content=body, headers={"Content-Type": "application/json"})
            assert is_problem(answer, 400), (path, body)
        assert is_problem(
            keyed.ask("POST", path, keyed.all, content=b"{}", headers={"Content-Type": "text/plain"}), 400
        )
        large = keyed.ask(
            "POST", path, keyed.all, content=b" " * (33 << 20), headers={"Content-Type": "application/json"}
        )
        assert is_problem(large, 413)


def test_no_secret_is_in_a_log_or_in_the_data(keyed: Keyed) -> None:
    """Of no key that was made here, in any file, while it runs or after; nor a line that a request forged, nor a trace."""
    keyed.make(keyed.all, name="last", scopes=["query"])
    keyed.ask("POST", f"/api/v1/operations/{quote(FORGED)}", keyed.all, json={"name": FORGED})
    keyed.stop_and_search()
