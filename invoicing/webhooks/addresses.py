"""Where webhooks may go: to the internet, and to nothing that only we can reach. Core.

Whoever makes an endpoint names a URL that our machine then asks. Owns that this opens no way to loopback, to private
networks, to a cloud's metadata, nor to any of them in the disguise of an IPv6 address.
"""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

URL_LENGTH_MAX = 2048
_METADATA = {ip_address("168.63.129.16")}  # of Azure, within the public addresses
_NOT_PUBLIC = [
    ip_network(each)
    for each in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/3",
    )
]  # fmt: skip
_PUBLIC_V6 = ip_network("2000::/3")
_NOT_PUBLIC_V6 = [ip_network(each) for each in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]
_EMBEDDING = [ip_network("::ffff:0:0/96"), ip_network("64:ff9b::/96")]
"""Networks of IPv6 whose addresses end in one of IPv4, which is what is asked then."""


def is_public(address: str) -> bool:
    """Whether an address is one of the internet's, that everybody could ask as well as we.

    >>> [is_public(each) for each in ("93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34")]
    [True, True, True]
    >>> [is_public(each) for each in ("127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1", "::1", "fd00:ec2::254")]
    [False, False, False, False, False]
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address):
        if parsed.scope_id is not None:
            return False
        if any(parsed in network for network in _EMBEDDING):
            return is_public(str(IPv4Address(int(parsed) & 0xFFFFFFFF)))
        return parsed in _PUBLIC_V6 and not any(parsed in network for network in _NOT_PUBLIC_V6)
    return parsed not in _METADATA and not any(parsed in network for network in _NOT_PUBLIC)


def url_fault(url: str, *, private_allowed: bool) -> str | None:
    """What is wrong with an endpoint's URL, in words; None when it may be asked.

    What a name resolves to is decided each time it is asked, on the very address that is then connected to.

    >>> url_fault("https://example.com/hooks", private_allowed=False) is None
    True
    >>> url_fault("http://localhost/", private_allowed=False)
    'allowed: a URL that begins with https://'
    """
    if len(url) > URL_LENGTH_MAX:
        return f"allowed: at most {URL_LENGTH_MAX} characters"
    if not url.isascii() or not url.isprintable() or any(each in url for each in ' "<>\\^`{|}'):
        return "allowed: the characters of a URL; others are percent-encoded"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        return f"allowed: a URL such as https://example.com/hooks; {error}"
    private = not private_allowed and _is_literal(host) and not is_public(host)
    faults = {
        "allowed: a URL that begins with https://": parts.scheme != "https"
        and not (private_allowed and parts.scheme == "http"),
        "allowed: a URL with a host name": not host,
        "allowed: a URL without a user name; a webhook is known by its signature": "@" in parts.netloc,
        "allowed: a URL without a fragment": bool(parts.fragment),
        f"{host} is no address of the internet; allowed: others, or the setting for private targets": private,
    }
    return next((fault for fault, is_there in faults.items() if is_there), None)


def _is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
