"""dora's ROS 2 classes where there is no rclpy: names, defaults, and what is missing."""

import sys
from pathlib import Path

import dora
import pyarrow as pa
import pytest

from dorad.ros2.api.node import parameter_value
from dorad.ros2.api.runtime import why_not
from dorad.ros2.api.topics import as_array
from dorad.ros2.qos import Profile

NAMES = (
    *("Ros2Context", "Ros2Node", "Ros2NodeOptions", "Ros2Topic", "Ros2Publisher"),
    *("Ros2Subscription", "Ros2QosPolicies", "Ros2Durability", "Ros2Liveliness", "Ros2Transport"),
    *("Ros2ServiceClient", "Ros2ServiceServer", "Ros2ActionClient", "Ros2ActionServer"),
)
IMPORT = ImportError("No module named 'rclpy'")
OWN = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.mark.parametrize("name", NAMES)
def test_dora_has_each_class(name: str) -> None:
    names: dict[str, type] = {}
    exec(f"from dora import {name}", names)
    assert names[name].__name__ == name


def test_the_defaults_are_those_of_dora() -> None:
    policies = dora.Ros2QosPolicies()
    assert policies.profile == Profile(False, False, 1, "automatic", None)
    policies = dora.Ros2QosPolicies(
        dora.Ros2Durability.TransientLocal,
        dora.Ros2Liveliness.ManualByTopic,
        True,
        False,
        2.5,
        0.1,
        7,
    )
    assert policies.profile == Profile(True, True, 7, "manual_by_topic", 2.5)
    assert dora.Ros2QosPolicies(keep_all=True, lease_duration=float("inf")).profile.depth == 0


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"keep_last": 0}, ValueError, "at least 1"),
        ({"keep_last": "5"}, TypeError, "keep_last must be an? int, got str"),
        ({"reliable": 1}, TypeError, "reliable must be a bool"),
        ({"lease_duration": -1.0}, ValueError, "not negative"),
        ({"max_blocking_time": float("nan")}, ValueError, "not negative"),
        ({"durability": "volatile"}, TypeError, "durability must be a Ros2Durability"),
        ({"durability": dora.Ros2Durability.Persistent}, RuntimeError, "TransientLocal"),
    ],
)
def test_policies_that_cannot_be_are_refused(
    arguments: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        dora.Ros2QosPolicies(**arguments)  # type: ignore[arg-type]


def test_transports_are_checked() -> None:
    assert dora.Ros2Transport.dds().kind == "dds"
    assert dora.Ros2Transport.zenoh("humble").kind == "zenoh"
    with pytest.raises(ValueError, match="`humble` or `rep2016`"):
        dora.Ros2Transport.zenoh("jazzy")
    with pytest.raises(ValueError, match="must not be empty"):
        dora.Ros2Transport.zenoh("rep2016", "")


def test_without_ros_an_error_of_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    with pytest.raises(RuntimeError, match=r"^rclpy cannot be imported: .*apt install ros-jazzy"):
        dora.Ros2Context()


def test_why_rclpy_is_missing_depends_on_what_is_there(tmp_path: Path) -> None:
    distribution = tmp_path / "jazzy"
    distribution.mkdir()
    (distribution / "setup.bash").touch()
    assert f"`source {distribution}/setup.bash`" in why_not(IMPORT, {}, tmp_path)
    environ = {"AMENT_PREFIX_PATH": str(distribution), "PATH": ""}
    assert "has no rclpy: apt install ros-DISTRO-rclpy" in why_not(IMPORT, environ, tmp_path)
    (distribution / f"lib/python{OWN}/site-packages/rclpy").mkdir(parents=True)
    text = why_not(IMPORT, environ, tmp_path)
    assert text.startswith(f"rclpy cannot be imported: {IMPORT} (source the setup.bash")
    other = tmp_path / "other"
    (other / "lib/python3.99/site-packages/rclpy").mkdir(parents=True)
    program = tmp_path / "bin" / "python3.99"
    program.parent.mkdir()
    program.touch(0o755)
    environ = {"AMENT_PREFIX_PATH": str(other), "PATH": str(program.parent)}
    text = why_not(IMPORT, environ, tmp_path)
    assert f"rclpy is for Python 3.99, and this node runs in {OWN}" in text
    assert "`path: python3.99`" in text


def test_data_for_a_topic_may_be_a_dictionary_or_a_scalar() -> None:
    array = pa.array([{"x": 1.5}])
    for data in ({"x": 1.5}, array[0], array):
        assert as_array(data).equals(array)
    with pytest.raises(TypeError, match="not list"):
        as_array([{"x": 1.5}])


def test_values_of_parameters_have_one_type() -> None:
    assert parameter_value("x", b"ab") == [b"a", b"b"]
    for value in (True, 5, 2.5, "text", [1, 2], ["a"], [True]):
        assert parameter_value("x", value) == value
    for wrong in (None, {}, (1,), [], [1, True], [1, 2.0], [[1]], 1 << 63):
        with pytest.raises(RuntimeError, match="parameter `x`"):
            parameter_value("x", wrong)
