"""A document for each template, with amounts that cancel, as somebody would write it."""

EXAMPLES: dict[str, dict[str, object]] = {
    "P01": {"subtotal": "100", "fees": "30", "commitment": "-5"},
    "P02": {"total": "120", "subtotal": "70", "accrued": "30", "tax": {"VAT 20%": "20"}},
    "P03": {"total": "120", "advance": "100", "tax": {"VAT 20%": "20"}},
    "P04": {"total": "100", "subtotal": "82.64", "tax": {"VAT 21%": "17.36"}},
    "P05": {"discount": "10", "tax": "2", "total": "12"},
    "P06": {"total": "120", "commitment": "100", "tax": "20"},
    "P07": {"total": "-120", "subtotal": "-100", "tax": "-20"},
    "P08": {"payment": "120"},
    "P09": {"payment": {"po_1": "120"}},
    "P10": {"net": "116.20", "fee": "3.80", "gross": {"po_1": "120"}},
    "P11": {"payment": "130", "due": "120", "excess": "10"},
    "P12": {"subtotal": "50", "advance": "50", "tax": "20", "total": "90", "excess": "30"},
    "P13": {"subtotal": "193.33", "tax": "48.33", "total": "241.66"},
    "P14": {"credit": "10"},
    "P15": {"refund": {"po_2": "10"}},
    "P16": {"recognised": "16"},
    "P17": {"unused": "50", "tax": "10", "total": "60"},
    "P18": {"provision": "-100"},
    "P19": {"subtotal": "100", "tax": "20", "total": "120"},
    "P20-open": {"disputed": "120", "unpaid": "20", "withdrawn": "100", "fee": "15"},
    "P20-lost": {"disputed": "120"},
    "P20-won": {"unpaid": "20", "returned": "100", "disputed": "120"},
    "P21-expected": {"expected": "30"},
    "P21": {"subtotal": "10", "expected": "30", "tax": "8", "credit": "40", "unpaid": "8"},
    "P22": {"payment": "119", "credits": {"wallet-1": "100"}, "tax": {"VAT 19%": "19"}},
    "P23": {"burned": {"wallet-1": "30"}, "subtotal": {"api": "20"}, "tender": "10"},
    "P24": {"burned": {"wallet-1": "5"}, "subtotal": "3", "tender": "2"},
    "P25": {"expired": {"wallet-1": "7"}},
    "P26": {"payment": "100 EUR", "received": "109.12 USD", "booked": "108.37 USD", "gain": "0.75 USD"},
    "P27": {"sold": "100 EUR", "bought": "110 USD", "spread": "0.50 USD"},
    "P28": {"residue": "-0.01"},
    "P29": {"total": "12", "fee": "10", "tax": "2"},
    "P30": {"total": "120", "subtotal": "100", "tax": "20"},
    "P32": {"difference": "-3"},
    "P33": {"written_off": {"api": "4"}},
}


def document(template: str, name: str = "", **more: object) -> dict[str, object]:
    """The example of a template, of the customer UA in euro, unless said otherwise."""
    return {
        "template": template, "document": name or f"example of {template}", "customer": "UA", "currency": "EUR",
        "effective_at": "2026-01-31", "amounts": EXAMPLES.get(template, {}), **more,
    }  # fmt: skip
