"""The generated module: what it builds is of the type, and what it reads is what was built."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dorad.dataflow.errors import DataflowError
from dorad.dataflow.load import from_descriptor, parse
from dorad.dataflow.types.generate.module import (
    class_names,
    field_names,
    function_name,
    module_text,
    snake,
)
from dorad.dataflow.types.library import Library
from dorad.dataflow.types.model import Scalar, Shape, Struct, TypeDef
from dorad.dataflow.types.user import read_user_types
from dorad.node.typeshapes import Shapes

ROOT = Path(__file__).parents[3]
OWN = """
types:
  acme/arm/v1/Everything:
    arrow: Struct
    description: 'says "all" \\ of it'
    fields:
      - {name: class, type: Float64}
      - {name: np, type: "List<Utf8>", nullable: false}
      - {name: array, type: Vector3}
      - {name: more, type: "List<Vector3>"}
      - {name: nested, type: "List<List<Float64>>"}
      - {name: deep, type: "List<List<List<Vector3>>>"}
      - {name: when, type: Timestamp}
      - {name: "weird name", type: Duration}
      - {name: 9x, type: Boolean}
      - {name: free, type: Struct}
      - {name: an_unusually_long_name_of_a_field_that_no_line_can_hold, type: "List<List<Pose>>"}
      - {name: an_even_longer_name_of_a_field_that_goes_on_and_on_and_on_and_on, type: Date32}
      - {name: alias, type: Speed}
      - {name: blobs, type: "List<LargeBinary>"}
      - {name: bin, type: Binary}
      - {name: images, type: "List<std/media/v1/Image>"}
      - {name: bits, type: "List<Boolean>"}
      - {name: way, type: Path}
      - {name: a_rather_long_name_of_a_field_with, type: "List<List<List<List<List<Utf8>>>>>"}
  acme/arm/v1/Speed: {arrow: Float32, params: [{name: unit}]}
  acme/arm/v1/Path: {arrow: List<Vector3>}
  acme/arm/v1/Image: {arrow: Struct, fields: [{name: index, type: Int8}, {name: "y", type: Int8}]}
  other/v1/Image: {arrow: Struct}
  acme/v1/Any: {arrow: Struct}
  acme/v1/print: {arrow: LargeUtf8}
  acme/v1/Reader: {arrow: Boolean}
  acme/v1/When: {arrow: Timestamp}
  acme/v1/Words: {arrow: List<Utf8>}
nodes: []
"""
USERS = parse(OWN, path=Path("flow.yml")).own_types


@pytest.fixture(scope="module")
def text() -> str:
    return module_text(USERS)


@pytest.fixture(scope="module")
def made(text: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("made") / "messages.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("made_messages", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["made_messages"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["made_messages"]


def conforms(urn: str, array: pa.Array) -> None:
    library = Library(USERS)
    definition = library.get(urn)
    assert definition is not None
    assert Shapes([library.plain(definition.shape)]).mismatch(array) is None


# -- the text --------------------------------------------------------------------------------------


def test_the_generated_module_is_deterministic(text: str) -> None:
    assert module_text(reversed(USERS)) == text


def test_it_needs_numpy_and_pyarrow_and_nothing_else(text: str) -> None:
    imported = set()
    for statement in ast.walk(ast.parse(text)):
        if isinstance(statement, ast.Import):
            imported |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            imported.add(statement.module)
    outside = {name for name in imported if name.partition(".")[0] not in sys.stdlib_module_names}
    assert outside == {"numpy", "numpy.typing", "pyarrow"}


@pytest.mark.parametrize("width", [88, 100, 120])
def test_a_formatter_finds_nothing_to_change(text: str, width: int) -> None:
    command = [
        *(sys.executable, "-m", "ruff", "format", "--isolated", f"--line-length={width}"),
        *("--diff", "--stdin-filename=m.py", "-"),
    ]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.long
@pytest.mark.timeout(180)
def test_a_strict_type_checker_finds_nothing_wrong(text: str, tmp_path: Path) -> None:
    (tmp_path / "messages.py").write_text(text, encoding="utf-8")
    use = "from messages import Pose, image\n\n\nimage(1)\nx: str = Pose(1).position.x\n"
    (tmp_path / "use.py").write_text(use, encoding="utf-8")
    # What `make lint` knows of numpy is of use; without it this takes some seconds.
    command = [
        *(sys.executable, "-m", "mypy", "--config-file=", "--strict", "--python-version=3.11"),
        *(f"--cache-dir={ROOT / '.mypy_cache'}", "messages.py", "use.py"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    reported = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert [line.partition(":")[0] for line in reported] == ["use.py"] * 2, done.stdout


# -- names -----------------------------------------------------------------------------------------


def test_names_are_those_of_python() -> None:
    assert [snake(name) for name in ("PointCloud", "UInt8", "Vector3", "IMUState", "XY")] == [
        "point_cloud",
        "uint8",
        "vector3",
        "imu_state",
        "xy",
    ]
    assert (function_name("Bytes"), function_name("Pose")) == ("bytes_", "pose")
    assert field_names(["a b", "class", "9", "_x", "a_b", "array", ""]) == [
        *("a_b", "class_", "f_9", "f_x", "a_b_", "array_", "f_"),
    ]
    assert field_names(["list", "property", "Any", "id", "type", "max", "Pose"], ["Pose"]) == [
        *("list_", "property_", "Any_", "id", "type", "max", "Pose_"),
    ]


def test_a_name_that_others_have_gets_its_prefix_before_it() -> None:
    def named(*urns: str) -> list[str]:
        names = class_names([TypeDef(urn, Scalar("Int8")) for urn in urns])
        return [names[urn] for urn in urns]

    assert named("std/media/v1/Image", "acme/arm/v1/Image", "acme/arm/v2/Image") == [
        "Image",
        "AcmeArmImage",
        "AcmeArmV2Image",
    ]
    assert named("a/v1/Any", "a/v1/any", "a/v1/Read_x", "a/v1/X") == [
        "AAny",
        "AV1Any",
        "Read_x",
        "AX",
    ]
    assert named("a/v1/list", "std/x/v1/Pose", "a/v1/pose", "a/v1/_items", "1/v1/Int") == [
        "List",
        "Pose",
        "APose",
        "Items",
        "Int",
    ]
    assert named("1/v1/T", "a/v1/t") == ["T1T", "AT"]
    assert len(set(named("a/v1/T", "a/v2/T", "A/v1/T", "b/v1/ReadT", "b/v1/T"))) == 5


# -- round trips -----------------------------------------------------------------------------------

NUMBERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


@pytest.mark.parametrize("name", [*NUMBERS, "float32", "float64"])
def test_numbers_are_shared_with_numpy(made: Any, name: str) -> None:
    values = np.arange(5, dtype=name)
    array = getattr(made, name)(values)
    read = getattr(made, f"read_{name}")(array)
    assert read.dtype == values.dtype
    assert np.shares_memory(values, read)
    conforms(f"std/core/v1/{name.replace('u', 'U').replace('i', 'I').replace('f', 'F')}"
             if name[0] != "i" else f"std/core/v1/{name.capitalize()}", array)  # fmt: skip


def test_texts_truth_values_and_bytes(made: Any) -> None:
    assert made.read_string(made.string("one")) == ["one"]
    assert made.read_string(made.string(["a", "ü"])) == ["a", "ü"]
    assert made.read_bool(made.bool_([True, False])).tolist() == [True, False]
    assert bytes(made.read_bytes(made.bytes_(b"abc"))) == b"abc"
    assert bytes(made.read_bytes(pa.array([1, 2], pa.uint8()))) == b"\1\2"
    assert made.read_bytes(made.bytes_(b"")).size == 0
    jpeg = np.arange(9, dtype=np.uint8)
    assert np.shares_memory(made.read_compressed_image(made.compressed_image(jpeg)), jpeg)
    conforms("std/core/v1/Bytes", made.bytes_(b"abc"))


def test_structs_of_numbers(made: Any) -> None:
    vector, turn = made.vector3(1, 2.5, -3), made.quaternion(0, 0, 0, 1)
    pose = made.pose(vector, turn)
    conforms("std/math/v1/Pose", pose)
    read = made.Pose(pose)
    assert read.position.numpy().tolist() == [1, 2.5, -3]
    assert (read.position.x, read.orientation.w) == (1.0, 1.0)
    moved = made.transform(read.position, read.orientation)
    assert made.Transform(moved).translation.z == -3
    twist = made.twist(vector, vector)
    odometry = made.Odometry(made.odometry(pose, twist, "map"))
    assert (odometry.frame_id, odometry.twist.angular.y) == ("map", 2.5)
    assert odometry.pose.position.array.field("x").equals(vector.field("x"))


def test_structs_of_lists(made: Any) -> None:
    positions = np.array([0.1, 0.2])
    array = made.joint_state(["a", "b"], positions, [], np.zeros(2, np.float32))
    conforms("std/control/v1/JointState", array)
    state = made.JointState(array)
    assert state.names == ["a", "b"]
    assert np.shares_memory(state.positions, positions)
    assert (state.velocities.size, state.efforts.dtype) == (0, np.float64)


def test_lists_of_structs(made: Any) -> None:
    boxes = [made.bounding_box(n, 0, 2, 3, 0.5, f"box {n}") for n in range(3)]
    array = made.detection(boxes)
    conforms("std/vision/v1/Detection", array)
    read = made.Detection(array).boxes
    assert [(box.x, box.label) for box in read] == [(0, "box 0"), (1, "box 1"), (2, "box 2")]
    assert made.Detection(made.detection([])).boxes == []
    assert len(made.Detection(made.detection(read[1:])).boxes) == 2


@pytest.mark.parametrize(
    ("shape", "dtype", "given", "encoding"),
    [
        ((4, 6), "uint8", None, "mono8"),
        ((4, 6, 3), "uint8", None, "rgb8"),
        ((4, 6, 3), "uint8", "bgr8", "bgr8"),
        ((4, 6, 4), "uint8", None, "rgba8"),
        ((4, 6), "uint16", None, "mono16"),
        ((4, 6, 1), "float32", None, "32FC1"),
        ((4, 6, 2), "uint8", "my own", "my own"),
        ((0, 6, 3), "uint8", None, "rgb8"),
    ],
)
def test_a_picture_is_height_by_width_by_channels_without_a_copy(
    made: Any, shape: tuple[int, ...], dtype: str, given: str | None, encoding: str
) -> None:
    pixels = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    array = made.image(pixels, given)
    conforms("std/media/v1/Image", array)
    read = made.Image(array)
    assert (read.height, read.width, read.encoding) == (shape[0], shape[1], encoding)
    assert read.pixels.shape == (*shape, 1)[:3]
    assert read.pixels.dtype == pixels.dtype
    assert (read.pixels == pixels.reshape(read.pixels.shape)).all()
    assert not pixels.size or np.shares_memory(read.pixels, pixels)


def test_an_array_that_is_not_a_picture_is_refused(made: Any) -> None:
    with pytest.raises(ValueError, match="height x width x channels"):
        made.image(np.zeros(4, np.uint8))
    with pytest.raises(ValueError, match="give the encoding of 2 channels of uint8"):
        made.image(np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(ValueError, match="rgb8 is not 3 channels of float32"):
        made.image(np.zeros((2, 2, 3), np.float32), "rgb8")


def test_an_array_that_is_not_contiguous_is_put_in_order(made: Any) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)[:, ::-1]
    assert (made.Image(made.image(pixels)).pixels == pixels).all()


def test_points_samples_and_masks(made: Any) -> None:
    points = np.arange(12, dtype=np.float32).reshape(4, 3)
    cloud = made.PointCloud(made.point_cloud(points))
    assert (cloud.width, cloud.height) == (4, 1)
    assert np.shares_memory(cloud.values(), points)
    assert cloud.values().shape == (1, 4, 3)
    rows = np.zeros((2, 5, 4), np.float64)
    assert made.PointCloud(made.point_cloud(rows)).values(np.float64).shape == (2, 5, 4)

    samples = np.arange(6, dtype=np.int16).reshape(3, 2)
    frame = made.AudioFrame(made.audio_frame(samples, 16000))
    assert (frame.sample_rate, frame.channels) == (16000, 2)
    assert (frame.samples("i16") == samples).all()
    mono = made.AudioFrame(made.audio_frame(np.zeros(5, np.float32), 8000))
    assert mono.samples().shape == (5, 1)

    mask = np.array([[0, 1], [1, 0], [0, 0]], np.uint8)
    array = made.segmentation(mask, ["road", "other"])
    conforms("std/vision/v1/Segmentation", array)
    read = made.Segmentation(array)
    assert (read.num_classes, read.class_names) == (2, ["road", "other"])
    assert np.shares_memory(read.labels, mask)
    assert (read.labels == mask).all()


def test_types_of_the_user_whatever_their_fields_are(made: Any) -> None:
    v = made.vector3
    values: dict[str, Any] = {
        "class_": 1.5,
        "np_": ["a"],
        "array_": v(1, 2, 3),
        "more": [v(4, 5, 6)],
        "nested": [[1.0, 2.0], []],
        "deep": [[[v(7, 8, 9)]], []],
        "when": np.datetime64("2026-01-01T00:00:00.5"),
        "weird_name": np.timedelta64(5, "s"),
        "f_9x": True,
        "free": {"a": 1},
        "an_unusually_long_name_of_a_field_that_no_line_can_hold": [],
        "an_even_longer_name_of_a_field_that_goes_on_and_on_and_on_and_on": np.datetime64(
            "2026-01-02"
        ),
        "alias": 2.5,
        "blobs": [b"x", np.zeros(2, np.uint16)],
        "bin": b"zz",
        "images": [made.image(np.zeros((2, 3), np.uint8))],
        "bits": [True, False],
        "way": [v(0, 0, 1), v(0, 0, 2)],
        "a_rather_long_name_of_a_field_with": [[[[["x"], []]]]],
    }
    array = made.everything(**values)
    conforms("acme/arm/v1/Everything", array)
    read = made.Everything(array)
    for name in ("class_", "np_", "when", "weird_name", "f_9x", "free", "alias"):
        assert getattr(read, name) == values[name]
    assert read.array_.z == 3
    assert [part.tolist() for part in read.nested] == [[1.0, 2.0], []]
    assert read.deep[0][0][0].x == 7
    assert read.deep[1] == []
    assert [bytes(blob) for blob in read.blobs] == [b"x", bytes(4)]
    assert bytes(read.bin) == b"zz"
    assert read.images[0].pixels.shape == (2, 3, 1)
    assert read.bits.tolist() == [True, False]
    assert [step.z for step in read.way] == [1, 2]
    assert read.a_rather_long_name_of_a_field_with == [[[[["x"], []]]]]


def test_types_of_the_user_other_than_structs(made: Any) -> None:
    assert made.read_speed(made.speed([1.5])).tolist() == [1.5]
    assert [step.y for step in made.read_path(made.path([made.vector3(1, 2, 3)]))] == [2]
    assert made.read_words(made.words(["a", "b"])) == ["a", "b"]
    assert made.read_print(made.print_("x")) == ["x"]
    moment = np.datetime64("2026-01-01T12:00")
    assert made.read_when(made.when(moment)) == [moment]
    assert made.read_acme_reader(made.acme_reader(True)).tolist() == [True]
    assert made.AcmeArmImage(made.acme_arm_image(1, 2)).index_ == 1
    assert made.acme_any({"a": 1}).field("a").to_pylist() == [1]


# -- reading malformed messages -----------------------------------------------------------


def test_a_reader_refuses_data_of_another_type(made: Any) -> None:
    with pytest.raises(TypeError, match="not std/math/v1/Vector3: double"):
        made.Vector3(pa.array([1.0]))
    with pytest.raises(TypeError, match="there is no field 'z'"):
        made.Vector3(pa.array([{"x": 1.0, "y": 1.0}]))
    with pytest.raises(IndexError):
        made.Vector3(made.vector3(1, 2, 3), 1)


def test_a_null_is_an_error_that_can_be_asked_about(made: Any) -> None:
    read = made.Vector3(pa.array([{"x": 1.0, "y": None, "z": 3.0}]))
    assert read.is_null("y")
    assert not read.is_null("x")
    with pytest.raises(ValueError, match="null"):
        _ = read.y


def test_many_values_in_one_message_are_read_one_by_one(made: Any) -> None:
    array = pa.concat_arrays([made.vector3(n, 0, 0) for n in range(4)])
    assert [read.x for read in made.Vector3.each(array)] == [0, 1, 2, 3]
    assert [read.x for read in made.Vector3.each(array[2:])] == [2, 3]


def test_a_reader_does_not_change(made: Any) -> None:
    read = made.Vector3(made.vector3(1, 2, 3))
    with pytest.raises(AttributeError):
        read.index = 1
    with pytest.raises(AttributeError):
        read.x = 1
    assert repr(read) == "<std/math/v1/Vector3, 1 of 1>"


def test_a_builder_refuses_a_struct_of_another_type(made: Any) -> None:
    with pytest.raises(TypeError, match="is expected"):
        made.pose(made.quaternion(0, 0, 0, 1), made.quaternion(0, 0, 0, 1))
    with pytest.raises(TypeError, match="not one text"):
        made.joint_state("abc", [], [], [])


def test_other_layouts_of_the_same_type_are_read_too(made: Any) -> None:
    boxes = [{"x": 1.0, "y": 2.0, "width": 3.0, "height": 4.0, "confidence": 1.0, "label": "a"}]
    assert made.Detection(pa.array([{"boxes": boxes}])).boxes[0].height == 4
    image = pa.array([{"width": 2, "height": 1, "encoding": "mono8", "data": b"ab"}])
    assert made.Image(image).pixels.tolist() == [[[97], [98]]]
    assert made.read_string(pa.array(["a"], pa.large_string())) == ["a"]


def test_every_standard_type_is_generated(made: Any) -> None:
    for definition in Library():
        shape: Shape = definition.shape
        name = definition.name
        assert hasattr(made, name if isinstance(shape, Struct) else f"read_{snake(name)}")
        assert hasattr(made, function_name(name))


# -- names that are code ---------------------------------------------------------------------------

CODE = [
    'a"""\nINJECTED()\n"""',
    'a"\nINJECTED()\n"',
    "a'''\nINJECTED()\n'''",
    "a', INJECTED(), '",
    'a", INJECTED(), "',
    "a\\",
    "a\u2028INJECTED()",
    "a\x00\x1b",
    "{INJECTED()}",
]


def without_injected_code(text: str) -> bool:
    """Return True if the text is a module in which no payload is a name."""
    tree = ast.parse(text)
    return not any(isinstance(node, ast.Name) and node.id == "INJECTED" for node in ast.walk(tree))


@pytest.mark.parametrize("code", CODE)
def test_descriptions_and_names_of_fields_are_never_code(code: str) -> None:
    definition = {
        "arrow": "Struct",
        "description": code,
        "fields": [{"name": code, "type": "Float32", "description": code}],
        "metadata": [{"key": code, "description": code}],
        "params": [{"name": "unit", "default": code, "description": code}],
    }
    flow = from_descriptor(
        {"types": {"acme/v1/Some": definition}, "nodes": []}, path=Path("flow.yml")
    )
    assert without_injected_code(module_text(flow.own_types))


@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize("name", ["{}/v1/Some", "acme/{}/Some", "acme/v1/{}"])
def test_the_name_of_a_type_cannot_be_code(code: str, name: str) -> None:
    urn = name.replace("{}", code)
    with pytest.raises(DataflowError, match="is not a valid type name"):
        from_descriptor({"types": {urn: {"arrow": "Struct"}}, "nodes": []}, path=Path("flow.yml"))


def test_the_name_of_a_folder_of_types_cannot_be_code(tmp_path: Path) -> None:
    folder = tmp_path / "types" / 'a"; INJECTED(); "'
    folder.mkdir(parents=True)
    (folder / "v1.yml").write_text("types: {Some: {arrow: Struct}}\n")
    with pytest.raises(DataflowError, match="is not a valid type name"):
        read_user_types(tmp_path)
