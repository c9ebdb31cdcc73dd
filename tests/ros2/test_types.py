"""Messages of an installed ROS 2 as types of a dataflow."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from dorad.dataflow.load import from_descriptor, load
from dorad.dataflow.types.check import check_types
from dorad.dataflow.types.runtime import port_types
from tests.cli.dora import dora
from tests.ros2.installation import describe, install

if TYPE_CHECKING:
    from pathlib import Path

LEVEL = "ros2/demo_msgs/Level"


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return install(tmp_path / "ros")


def write(folder: Path, sent: str, expected: str, more: str = "") -> Path:
    file = folder / "dataflow.yml"
    file.write_text(f"""\
nodes:
  - id: bridge
    ros2: {{topics: [{{topic: /level, message_type: demo_msgs/Level, output: level}},
                   {{topic: /other, message_type: demo_msgs/Level, direction: publish}}]}}
    inputs: {{other: plain/sent}}
    outputs: [level]
  - id: plain
    path: plain.py
    inputs: {{level: bridge/level}}
    input_types: {{level: {expected}}}
    outputs: [sent]
    output_types: {{sent: {sent}}}
{more}""")
    return file


def warnings(file: Path, prefix: Path | None) -> list[str]:
    environ = {} if prefix is None else {"AMENT_PREFIX_PATH": str(prefix)}
    checked = check_types(load(file, environ=environ))
    return [str(each).partition(": ")[2] for each in checked.warnings]


def test_the_ends_of_an_edge_are_compared_with_the_topic_of_a_bridge(
    tmp_path: Path, prefix: Path
) -> None:
    assert warnings(write(tmp_path, LEVEL, LEVEL), prefix) == []
    assert warnings(write(tmp_path, "std/math/v1/Pose", "ros2/demo_msgs/Stamp"), prefix) == [
        (
            f"nodes[0].inputs.other: `plain/sent` sends `std/math/v1/Pose`, but `{LEVEL}` is"
            ' expected (it has no field "stamp")'
        ),
        (
            f"nodes[1].input_types.level: `bridge/level` sends `{LEVEL}`, but"
            ' `ros2/demo_msgs/Stamp` is expected (it has no field "sec")'
        ),
    ]


def test_a_message_that_is_not_installed_is_a_warning_with_the_command_that_tells_why(
    tmp_path: Path, prefix: Path
) -> None:
    file = write(tmp_path, LEVEL, "ros2/demo_msgs/Lewel")
    (unknown,) = warnings(file, prefix)
    assert "unknown type `ros2/demo_msgs/Lewel`" in unknown
    assert f"did you mean `{LEVEL}`" in unknown
    # Without ROS 2 here, the names are compared all the same.
    lines = warnings(write(tmp_path, "std/math/v1/Pose", LEVEL), None)
    assert f"unknown type `{LEVEL}` (`dora types show {LEVEL}` says what is missing)" in lines[1]
    assert f"`plain/sent` sends `std/math/v1/Pose`, but `{LEVEL}` is expected" in lines[0]


def test_the_messages_go_with_the_descriptor_to_machines_without_ros(
    tmp_path: Path, prefix: Path
) -> None:
    flow = load(write(tmp_path, LEVEL, LEVEL), environ={"AMENT_PREFIX_PATH": str(prefix)})
    there = from_descriptor(json.loads(json.dumps(flow.descriptor)), path=flow.path)
    types = port_types(there, there.nodes[1])
    assert types is not None
    stamp = {"fields": [["sec", "Int32", True], ["frame", "Utf8", True]]}
    assert types["inputs"]["level"]["accepts"] == [
        {
            "fields": [
                ["stamp", stamp, True],
                ["value", "Float32", True],
                ["names", {"list": "Utf8"}, True],
            ]
        }
    ]
    # The bridge itself converts what it gets, so its messages are not checked once more.
    assert port_types(there, there.nodes[0]) is None


def test_types_are_listed_and_shown(tmp_path: Path, prefix: Path) -> None:
    environ = {"AMENT_PREFIX_PATH": str(prefix)}
    listed = json.loads(dora("types", "list", "--json", cwd=tmp_path, env=environ).stdout)
    assert [each["urn"] for each in listed[27:]] == [LEVEL, "ros2/demo_msgs/Stamp"]
    for name in (LEVEL, "Level"):
        assert (
            dora("types", "show", name, cwd=tmp_path, env=environ).stdout
            == f"""\
{LEVEL}
  the message demo_msgs/msg/Level of ROS 2
  arrow: Struct
  fields:
    stamp  ros2/demo_msgs/Stamp
    value  Float32
    names  List<Utf8>
"""
        )


def test_a_damaged_description_is_reported_and_the_others_are_listed(
    tmp_path: Path, prefix: Path
) -> None:
    describe(prefix, "Wrong", {"demo_msgs/msg/Wrong": [{"name": "x"}]})
    result = dora("types", "list", cwd=tmp_path, env={"AMENT_PREFIX_PATH": str(prefix)})
    assert result.returncode == 0
    assert LEVEL in result.stdout
    assert "Wrong.json is not a type description" in result.stderr


def test_a_message_that_is_missing_is_an_error_that_says_what_to_install(
    tmp_path: Path, prefix: Path
) -> None:
    def shown(name: str, environ: dict[str, str]) -> str:
        result = dora("types", "show", name, cwd=tmp_path, env=environ)
        assert result.returncode == 1
        return str(result.stderr)

    environ = {"AMENT_PREFIX_PATH": str(prefix)}
    assert "the ROS 2 package demo_msgs has no msg/Lost" in shown("ros2/demo_msgs/Lost", environ)
    text = shown("ros2/nav_msgs/Path", environ)
    assert "nav_msgs is not installed (apt install ros-DISTRO-nav-msgs)" in text
    assert "there is no ROS 2 on this machine: install one" in shown(LEVEL, {})


def test_the_generated_module_has_the_messages_of_the_bridges(tmp_path: Path, prefix: Path) -> None:
    file = tmp_path / "dataflow.yml"
    file.write_text("""\
nodes:
  - id: bridge
    ros2: {topic: /level, message_type: demo_msgs/Level}
    outputs: [level]
""")
    environ = {"AMENT_PREFIX_PATH": str(prefix)}
    module = tmp_path / "messages.py"
    assert dora("types", "generate", str(file), "-o", str(module), env=environ).returncode == 0
    program = """
from messages import Level, level, stamp
built = Level(level(stamp(7, "map"), 0.5, ["a", "b"]))
print(built.URN, built.stamp.sec, built.stamp.frame, built.value, built.names)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{LEVEL} 7 map 0.5 ['a', 'b']\n"
    result = dora("types", "generate", str(file))
    assert result.returncode == 1
    assert f"there is no type `{LEVEL}`: there is no ROS 2 on this machine" in result.stderr
