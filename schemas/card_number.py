"""Card numbers, which nobody may give us: a payment is named by its gateway's token, never by a card."""

import re

_SHAPE = re.compile(
    r"(?<![0-9])(?:[0-9]{13,19}|[0-9]{4}(?:[ -][0-9]{4}){2,3}[ -][0-9]{1,4}"
    r"|[0-9]{4}[ -][0-9]{6}[ -][0-9]{4,5})(?![0-9])"
)
"""The digits of a card, as they are printed on one: in fours, in 4-6-5 or 4-6-4, or all together."""


def holds_card_number(text: str) -> bool:
    """Whether 13 to 19 digits in a text, in groups as cards have them or in none, have a card's check digit.

    >>> holds_card_number("card 4242-4242 4242 4242"), holds_card_number("4242424242424241")
    (True, False)
    """
    return any(_passes_luhn(re.sub("[ -]", "", each)) for each in _SHAPE.findall(text))


def _passes_luhn(digits: str) -> bool:
    """Luhn's check: every second digit from the right counts twice, less 9 where that has two digits."""
    doubled = "0246813579"
    odd, even = digits[-1::-2], digits[-2::-2]
    return (sum(map(int, odd)) + sum(int(doubled[int(each)]) for each in even)) % 10 == 0
