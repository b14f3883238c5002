"""Card numbers in any text are seen, and other numbers are not."""

import pytest

from schemas.card_number import holds_card_number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4242424242424242", True), ("4242 4242 4242 4242", True), ("pay-4242-4242-4242-4242-x", True),
        ("378282246310005", True), ("6304000000000000000", True), ("3782-822463-10005", True), ("4242 4242 4242 4", False), ("4222222222222", True), ("5555555555554444\n", True),
        ("4242424242424241", False), ("424242424242", False), ("42424242424242424242", False), ("pay_119", False),
        ("\u0664\u0662" * 8, False), ("", False), ("2026-01-31 2026-02-28", False),
    ],
)  # fmt: skip
def test_what_looks_like_a_card(text: str, expected: bool) -> None:
    """13 to 19 ASCII digits with a good check digit; two days are none."""
    assert holds_card_number(text) is expected
