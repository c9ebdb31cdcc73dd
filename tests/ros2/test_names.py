"""Names as ROS 2 resolves them."""

import pytest

from dorad.ros2.names import full_name, ros_name


@pytest.mark.parametrize(
    ("name", "namespace", "full"),
    [
        ("/scan", "/robot", "/scan"),
        ("scan", "/", "/scan"),
        ("scan", "/robot", "/robot/scan"),
        ("front/scan", "robot/arm", "/robot/arm/front/scan"),
        ("~/scan", "/", "/node/scan"),
        ("~/scan", "/robot", "/robot/node/scan"),
        ("~", "/robot", "/robot/node"),
    ],
)
def test_a_topic_has_its_full_name(name: str, namespace: str, full: str) -> None:
    assert full_name(name, namespace, "node") == full


@pytest.mark.parametrize(
    ("node_id", "name"), [("camera", "camera"), ("left-arm.1", "left_arm_1"), ("1st", "_1st")]
)
def test_the_id_of_a_node_becomes_a_name_of_ros_2(node_id: str, name: str) -> None:
    assert ros_name(node_id) == name
