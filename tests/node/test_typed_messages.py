"""Messages of a generated module, sent through shared memory."""

from dorad.dataflow.types.generate.module import module_text
from tests.harness.dataflow import Flow

PLACE = '''
def shared(array):
    """Return True if an array is in shared memory (proc_pid_maps(5), `rw-s`)."""
    first = array.ctypes.data
    for line in open("/proc/self/maps"):
        addresses, permissions = line.split()[:2]
        start, end = (int(address, 16) for address in addresses.split("-"))
        if start <= first < end:
            return permissions.endswith("s") and first + array.nbytes <= end
    return False
'''


def test_images_and_lists_are_read_in_place(flow: Flow) -> None:
    (flow.folder / "messages.py").write_text(module_text(), encoding="utf-8")
    (flow.folder / "place.py").write_text(PLACE, encoding="utf-8")
    flow.node(
        "source",
        """
        import numpy as np
        from dora import Node
        from messages import bounding_box, detection, float64, image, joint_state

        node = Node()
        picture = np.arange(480 * 640 * 3, dtype=np.uint8).reshape(480, 640, 3)
        node.send_output("image", image(picture))
        node.send_output("joints", joint_state([f"j{n}" for n in range(999)], np.ones(999), [], []))
        node.send_output("numbers", float64(np.arange(9999)))
        node.send_output("found", detection([bounding_box(1, 2, 3, 4, 0.5, "x" * 500)]))
        """,
        outputs=["image", "joints", "numbers", "found"],
        env={"DORA_RUNTIME_TYPE_CHECK": "error"},
    )
    flow.nodes[-1]["output_types"] = types = {
        "image": "std/media/v1/Image",
        "joints": "std/control/v1/JointState",
        "numbers": "std/core/v1/Float64",
        "found": "std/vision/v1/Detection",
    }
    flow.node(
        "sink",
        """
        import numpy as np
        from dora import Node
        from messages import Detection, Image, JointState, read_float64
        from place import shared
        from probe import report

        kept = []
        for event in Node():
            if event["type"] != "INPUT":
                continue
            value = event["value"]
            if event["id"] == "image":
                array = Image(value).pixels
                right = array.ravel().tolist() == [n % 256 for n in range(480 * 640 * 3)]
                right = right and array.shape == (480, 640, 3)
            elif event["id"] == "joints":
                array = JointState(value).positions
                right = JointState(value).names[998] == "j998" and array.tolist() == [1] * 999
            elif event["id"] == "numbers":
                array = read_float64(value)
                right = array.tolist() == list(range(9999))
            else:
                (box,) = Detection(value).boxes
                report([event["id"], box.label == "x" * 500, box.height == 4])
                continue
            report([event["id"], right, shared(array), array.flags.writeable])
        """,
        inputs={name: f"source/{name}" for name in types},
    )
    flow.nodes[-1]["input_types"] = types
    flow.run().expect(0)
    assert sorted(flow.reports("sink")) == [
        ["found", True, True],
        *([name, True, True, False] for name in ("image", "joints", "numbers")),
    ]
