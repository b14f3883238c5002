"""Where a server listens, and to whom: keys are in use where others than this machine can reach it."""

from dataclasses import dataclass
from ipaddress import ip_address

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Listening:
    """Where a server listens, and to whom."""

    port: int
    """0 takes a free one."""
    host: str = HOST
    keys: bool | None = None
    """Whether requests need keys; None: where others than this machine can reach it."""
    events_per_second: int | None = None
    """Of a tenant that has no rate of its own; None: as many as come."""

    @property
    def uses_keys(self) -> bool:
        """Whether requests need keys: as the operator wants it, or else where others can reach it.

        >>> [Listening(0, host, keys).uses_keys for host, keys in ((HOST, None), ("0.0.0.0", None), ("0.0.0.0", False))]
        [False, True, False]
        """
        return not is_loopback(self.host) if self.keys is None else self.keys


def is_loopback(address: str) -> bool:
    """Whether an address or host name is this machine's alone.

    >>> [is_loopback(each) for each in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "example.org", "")]
    [True, True, True, False, False, False]
    """
    try:
        return address == "localhost" or ip_address(address).is_loopback
    except ValueError:
        return False
