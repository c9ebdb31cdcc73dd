"""What counts as one host, for limits by host."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network


def host_of(address: str) -> str:
    """Return the host of a peer's IP address.

    It is an IPv4 address, or an IPv6 network of /64: one machine can have all addresses of it.
    """
    ip = ip_address(address.partition("%")[0])
    if not isinstance(ip, IPv6Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ip_network((int(ip), 64), strict=False))
