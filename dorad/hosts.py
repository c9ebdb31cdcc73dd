"""What counts as one host, for limits by host."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network


def host_of(address: str) -> str:
    """Return the host of a peer's IP address.

    It is an IPv4 address, or an IPv6 network of /64: one machine can have all addresses of it.
    """
    found = ip_address(address.partition("%")[0])
    if not isinstance(found, IPv6Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ip_network((int(found), 64), strict=False))
