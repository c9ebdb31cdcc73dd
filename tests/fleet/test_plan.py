"""The plan of an installation: facts in, steps out."""

from dataclasses import replace
from pathlib import Path

import pytest

from dorafleet.robot.facts import Facts, InstallPlan, plan
from dorafleet.robot.package import Package
from dorafleet.ssh.errors import Code, SshError

PACKAGE = Package(Path("dorad.deb"), "1.0.0", "arm64", 10)
WELL = Facts(0, "arm64", "1.0.0", "active", enabled=True)


@pytest.mark.parametrize(
    ("change", "install", "enable"),
    [
        ({}, False, False),
        ({"version": None, "service": "inactive", "enabled": False}, True, True),
        ({"version": "0.9.0"}, True, False),
        ({"version": "1.0.1"}, True, False),
        ({"service": "failed"}, False, True),
        ({"enabled": False}, False, True),
    ],
)
def test_only_missing_steps_are_planned(change, install, enable):
    assert plan(replace(WELL, **change), PACKAGE) == InstallPlan(install, enable)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"architecture": "amd64"}, "it is amd64, the package is for arm64"),
        ({"architecture": None}, "no dpkg"),
        ({"service": "no systemd"}, "no systemd"),
    ],
)
def test_a_robot_that_the_package_does_not_fit_is_refused(change, expected):
    with pytest.raises(SshError, match=expected) as caught:
        plan(replace(WELL, **change), PACKAGE)
    assert caught.value.code is Code.REFUSED


def test_a_package_for_all_architectures_fits_everywhere():
    everywhere = replace(PACKAGE, architecture="all")
    assert plan(replace(WELL, architecture="riscv64"), everywhere).nothing
