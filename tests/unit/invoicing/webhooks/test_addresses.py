"""Where webhooks may go."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing.webhooks.addresses import is_public, url_fault

PRIVATE = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.255", "169.254.169.254", "169.254.0.1",
    "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.168.0.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1",
    "240.0.0.1", "255.255.255.255", "168.63.129.16",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "2001::1", "2001:10::1", "2002:7f00:1::", "3fff::1",
    "64:ff9b:1::1", "100::1", "::127.0.0.1", "5f00::1", "4000::1", "", "localhost", "127.1", "0x7f.1", "2130706433", "2606:4700::1%1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_what_only_we_can_reach_is_refused(address: str) -> None:
    """Also in the disguise of an IPv6 address, and also what is no address."""
    assert not is_public(address)
    if address.count(".") == 3:
        assert not is_public(f"::ffff:{address}")
        assert not is_public(f"64:ff9b::{address}")
    assert (
        url_fault(f"https://[{address}]/" if ":" in address else f"https://{address}/", private_allowed=False)
        or "." not in address
        or address in {"127.1", "0x7f.1"}
    )


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "8.8.8.8",
        "172.15.0.1",
        "172.32.0.1",
        "100.63.0.1",
        "100.128.0.1",
        "11.0.0.1",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2606:4700::1111",
        "2a00:1450::1",
    ],
)
def test_the_internet_is_allowed(address: str) -> None:
    """Up to the bounds of what is not."""
    assert is_public(address)


@given(
    st.integers(0, 2**32 - 1).map(IPv4Address)
    | st.integers(0, 2**128 - 1).map(IPv6Address)
    | st.integers(0, 2**125).map(lambda low: IPv6Address(2**125 + low))
)
def test_nothing_that_the_standard_library_calls_private_is_public(address: IPv4Address | IPv6Address) -> None:
    """A second opinion, over all addresses."""
    parsed = ip_address(str(address))
    if is_public(str(address)):
        assert not parsed.is_private
        assert not any((parsed.is_loopback, parsed.is_link_local, parsed.is_multicast, parsed.is_reserved))


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://example.com/", "https://"), ("ftp://example.com/", "https://"), ("//example.com/", "https://"), ("example.com", "https://"), ("", "https://"),
        ("https://", "host name"), ("https:///path", "host name"), ("https://user:secret@example.com/", "user name"), ("https://user@example.com/", "user name"),
        ("https://example.com/#part", "fragment"), ("https://example.com:99999/", "URL such as"), ("https://example.com:x/", "URL such as"), ("https://[::1/", "URL such as"),
        ("https://example.com/a b", "characters"), ("https://example.com/\n", "characters"), ("https://exämple.com/", "characters"), ("https://example.com\\@evil/", "characters"),
        ("https://example.com/" + "x" * 2048, "2048"), ("https://127.0.0.1/", "no address of the internet"), ("https://[::ffff:127.0.0.1]/", "no address of the internet"),
        ("file:///etc/passwd", "https://"), ("gopher://x/", "https://"),
    ],
)  # fmt: skip
def test_a_url_that_may_not_be_asked_is_told_why(url: str, fault: str) -> None:
    """In words that say what is allowed."""
    assert fault in (url_fault(url, private_allowed=False) or "")


def test_private_targets_may_be_allowed() -> None:
    """For tests, and for who runs everything on one network; what is no URL of HTTP stays refused."""
    for url in ("http://127.0.0.1:8000/x?y=z", "https://[::1]/", "http://localhost/"):
        assert url_fault(url, private_allowed=True) is None
    assert url_fault("file:///etc/passwd", private_allowed=True)
    assert url_fault("http://user@localhost/", private_allowed=True)
