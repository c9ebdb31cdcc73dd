"""What counts as one host."""

import pytest

from dorad.hosts import host_of


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("fd00:1:2:3:4:5:6:7", "fd00:1:2:3::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::7%eth0", "fe80::/64"),
    ],
)
def test_a_host_is_an_address_or_a_network_that_one_machine_may_have(
    address: str, host: str
) -> None:
    assert host_of(address) == host
