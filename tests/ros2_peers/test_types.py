"""The messages of a real ROS 2 as types, and their generated classes."""

import json
from pathlib import Path

from dorad.cli.doctor_ros2 import check_ros2
from tests.cli.dora import dora

from .conftest import Peer
from .test_topics import Bridged

WATCH = """
    from pathlib import Path

    from dora import Node
    from messages import Ros2Image
    from probe import report

    for event in Node():
        if event["type"] == "INPUT":
            Path("started").touch()
            image = Ros2Image(event["value"])
            if image.height:  # the first ones have no pixels
                report([image.encoding, image.header.frame_id, len(image.data)])
                break
"""


def test_every_message_is_listed(tmp_path: Path, ros: Path) -> None:
    environ = {"AMENT_PREFIX_PATH": str(ros)}
    result = dora("types", "list", "--json", cwd=tmp_path, env=environ)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    listed = [each["urn"] for each in json.loads(result.stdout)]
    files = sorted(ros.glob("share/*/msg/*.json"))
    assert len(files) > 100
    assert {f"ros2/{each.parts[-3]}/{each.stem}" for each in files} == {
        each for each in listed if each.startswith("ros2/")
    }
    # And every one of them is a type that a dataflow file could have.
    generated = tmp_path / "dataflow.yml"
    topics = ", ".join(
        f"{{topic: /t{number}, message_type: {each.removeprefix('ros2/')}, output: t{number}}}"
        for number, each in enumerate(listed[27:91])
    )
    outputs = ", ".join(f"t{number}" for number in range(len(listed[27:91])))
    generated.write_text(
        f"nodes:\n  - id: b\n    ros2: {{topics: [{topics}]}}\n    outputs: [{outputs}]\n"
    )
    module = dora("types", "generate", str(generated), env=environ)
    assert module.returncode == 0, module.stderr
    compile(module.stdout, "messages.py", "exec")


def test_a_generated_class_reads_what_ros_sends(
    tmp_path: Path, ros: Path, domain: int, peer: Peer
) -> None:
    flow = Bridged(tmp_path)
    flow.bridge(
        ros,
        domain,
        [
            {"topic": "/image", "message_type": "sensor_msgs/Image", "output": "image"},
            # The bridge ends when its input closes.
            {"topic": "/done", "message_type": "std_msgs/UInt64", "direction": "publish"},
        ],
        inputs={"done": "watch/done"},
        outputs=["image"],
    )
    flow.node("watch", WATCH, inputs={"image": "bridge/image"}, outputs=["done"])
    flow.nodes[-1]["input_types"] = {"image": "ros2/sensor_msgs/Image"}
    (tmp_path / "types.yml").write_text(json.dumps({"nodes": flow.nodes}))
    module = ["-o", str(tmp_path / "messages.py")]
    result = dora("types", "generate", str(tmp_path / "types.yml"), *module)
    assert result.returncode == 0, result.stderr
    peer("peer", "image", "/image", 1000, 20, 100_000)
    text = flow.run(deadline=90).expect(0).output
    (image,) = flow.reports("watch")
    assert image == ["mono8", "camera", 100_000]
    assert "mismatch" not in text


def test_the_doctor_has_nothing_against_a_real_installation(tmp_path: Path, ros: Path) -> None:
    checks = [*check_ros2({"AMENT_PREFIX_PATH": str(ros), "ROS_DISTRO": "kilted"}, tmp_path)]
    assert [each.level for each in checks] == ["PASS"] * 3
    assert "rmw_fastrtps_cpp" in checks[1].text
