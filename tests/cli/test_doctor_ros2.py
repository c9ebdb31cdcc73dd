"""What `dora doctor` says of ROS 2, on folders that look like installations."""

import sys
from pathlib import Path

import pytest

from dorad.cli.doctor_ros2 import check_domain, check_ros2
from dorad.realtime.checks import Check
from tests.ros2.installation import install

OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
PATH = "/usr/bin:/bin"


def distribution(
    folder: Path, name: str, version: str = OWN, rmw: str = "rmw_fastrtps_cpp"
) -> Path:
    prefix = install(folder / name)
    (prefix / f"lib/python{version}/site-packages/rclpy").mkdir(parents=True)
    index = prefix / "share/ament_index/resource_index/rmw_typesupport"
    index.mkdir(parents=True)
    (index / rmw).touch()
    (prefix / "setup.bash").write_text(f"export AMENT_PREFIX_PATH={prefix} ROS_DISTRO={name}\n")
    return prefix


def lines(checks: list[Check]) -> list[str]:
    return [f"{each.level} {each.name}: {each.text}" for each in checks]


def checked(folder: Path, **environ: str) -> list[Check]:
    return [*check_ros2({"PATH": PATH, **environ}, folder)]


def test_a_machine_without_ros_gets_no_line(tmp_path: Path) -> None:
    assert checked(tmp_path) == []


def test_a_distribution_that_fits_is_described(tmp_path: Path) -> None:
    prefix = distribution(tmp_path, "jazzy")
    expected = [
        f"PASS ROS 2 jazzy: Python {OWN}, that of dora",
        "PASS ROS 2 jazzy: 2 types of messages, rmw_fastrtps_cpp",
        "PASS ROS_DOMAIN_ID: 0, the default",
    ]
    assert lines(checked(tmp_path)) == expected
    # The same if it is sourced already.
    sourced = {"AMENT_PREFIX_PATH": str(prefix), "ROS_DISTRO": "jazzy"}
    assert lines(checked(tmp_path, **sourced)) == expected


def test_humble_does_not_fit(tmp_path: Path) -> None:
    prefix = distribution(tmp_path, "humble", "3.10")
    for file in prefix.glob("share/*/msg/*.json"):
        file.unlink()
    program = tmp_path / "bin" / "python3.10"
    program.parent.mkdir()
    program.touch(0o755)
    checks = checked(tmp_path, PATH=f"{program.parent}:{PATH}")
    assert lines(checks)[:2] == [
        "WARN ROS 2 humble: Python 3.10, and dorad needs 3.11",
        "WARN ROS 2 humble: no type descriptions, so bridges cannot read its messages",
    ]
    assert {each.hint for each in checks[:2]} == {"use Jazzy or a later distribution"}


def test_a_python_that_lacks_dorad_is_named_with_the_command_that_helps(tmp_path: Path) -> None:
    distribution(tmp_path, "rolling", "3.99")
    program = tmp_path / "bin" / "python3.99"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\necho \"ModuleNotFoundError: No module named 'pyarrow'\" >&2; exit 1\n"
    )
    program.chmod(0o755)
    first = checked(tmp_path, PATH=f"{program.parent}:{PATH}")[0]
    assert lines([first]) == [
        (
            f"WARN ROS 2 rolling: bridges cannot run in {program}:"
            " ModuleNotFoundError: No module named 'pyarrow'"
        )
    ]
    assert first.hint is not None
    assert f"`{program} -m pip install dorad`" in first.hint


def test_several_distributions_are_a_warning(tmp_path: Path) -> None:
    distribution(tmp_path, "jazzy")
    distribution(tmp_path, "kilted")
    text = "\n".join(lines(checked(tmp_path)))
    assert f"WARN ROS 2: several distributions: {tmp_path}/jazzy, {tmp_path}/kilted" in text


def test_a_middleware_that_is_missing_is_named(tmp_path: Path) -> None:
    distribution(tmp_path, "jazzy")
    checks = checked(tmp_path, RMW_IMPLEMENTATION="rmw_zenoh_cpp")
    assert "WARN ROS 2 jazzy: rmw_zenoh_cpp is not installed; installed: rmw_fastrtps_cpp" in lines(
        checks
    )
    assert checks[1].hint is not None
    assert "ros-jazzy-rmw-zenoh-cpp" in checks[1].hint


def test_a_setup_file_that_fails_is_a_warning(tmp_path: Path) -> None:
    prefix = distribution(tmp_path, "jazzy")
    (prefix / "setup.bash").write_text("echo broken >&2; return 1\n")
    assert "cannot be sourced: broken" in lines(checked(tmp_path))[0]


@pytest.mark.parametrize(
    ("domain", "level", "words"),
    [
        ("", "PASS", "0, the default"),
        ("101", "PASS", "101"),
        ("102", "WARN", "other programs may have its ports, 32900 and above"),
        ("214", "WARN", "60900"),
        ("215", "PASS", "215"),
        ("233", "WARN", "from 0 to 232"),
        ("seven", "WARN", "'seven' is not a number"),
    ],
)
def test_the_domain_is_checked(tmp_path: Path, domain: str, level: str, words: str) -> None:
    port_range = tmp_path / "range"
    port_range.write_text("32768\t60999\n")
    check = check_domain(domain, port_range)
    assert check.level == level
    assert words in check.text
    if "ports" in words:
        assert check.hint == "use a domain up to 101"
