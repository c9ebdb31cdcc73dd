"""Which ROS 2 a bridge takes, on folders that look like installations."""

import fcntl
import os
import sys
from pathlib import Path

import pytest

from dorad.ros2.environment import Setup, SetupError, choose, enter, use_profile
from dorad.ros2.leftovers import remove_leftovers

OWN = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def distributions(tmp_path: Path) -> Path:
    folder = tmp_path / "opt-ros"
    folder.mkdir()
    return folder


def distribution(folder: Path, name: str, version: str = OWN) -> Path:
    prefix = folder / name
    (prefix / f"lib/python{version}/site-packages/rclpy").mkdir(parents=True)
    file = prefix / "setup.bash"
    file.write_text(f"export AMENT_PREFIX_PATH={prefix} GREETING='a b'\necho noise\n")
    return file


def test_the_only_distribution_is_taken(distributions: Path) -> None:
    file = distribution(distributions, "jazzy")
    assert choose(None, Path(), {}, distributions) == Setup(file)


def test_of_several_one_must_be_named(distributions: Path) -> None:
    distribution(distributions, "jazzy")
    file = distribution(distributions, "kilted")
    with pytest.raises(
        SetupError, match=r"several ROS 2 installations: name one of .*jazzy, .*kilted"
    ):
        choose(None, Path(), {}, distributions)
    assert choose(str(file.parent), Path(), {}, distributions) == Setup(file)
    assert choose("opt-ros/kilted", distributions.parent, {}, distributions) == Setup(file)
    assert choose(str(file), Path(), {}, distributions) == Setup(file)


def test_variables_that_are_set_already_count(distributions: Path) -> None:
    distribution(distributions, "jazzy")
    assert choose(None, Path(), {"AMENT_PREFIX_PATH": "/x"}, distributions) == Setup()


def test_without_any_the_message_says_what_to_install(distributions: Path) -> None:
    with pytest.raises(SetupError, match=r"no ROS 2 .*apt install ros-jazzy-ros-base.*`setup`"):
        choose(None, Path(), {}, distributions)


def test_a_folder_without_ros_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"has no setup.bash and no bin/python"):
        choose(str(tmp_path), Path(), {})


def test_a_setup_file_is_sourced_and_our_python_taken_if_its_version_fits(
    distributions: Path,
) -> None:
    file = distribution(distributions, "jazzy")
    found = enter(Setup(file), {"PATH": "/usr/bin:/bin", "KEPT": "1"})
    assert (found.python, found.version) == (sys.executable, OWN)
    assert found.variables["GREETING"] == "a b"
    assert found.variables["KEPT"] == "1"


def test_the_python_of_another_version_is_taken_from_path(distributions: Path) -> None:
    file = distribution(distributions, "rolling", "3.99")
    bin_folder = distributions / "bin"
    bin_folder.mkdir()
    variables = {"PATH": f"{bin_folder}:/usr/bin:/bin"}
    with pytest.raises(SetupError, match=r"rclpy is for Python 3\.99, which is not on PATH"):
        enter(Setup(file), variables)
    (bin_folder / "python3.99").touch(0o755)
    assert enter(Setup(file), variables).python == str(bin_folder / "python3.99")


def test_a_setup_file_that_fails_is_named_with_its_last_line(distributions: Path) -> None:
    file = distributions / "setup.bash"
    file.write_text("echo first >&2; echo 'no such workspace' >&2; return 3\n")
    with pytest.raises(SetupError, match=r"setup.bash cannot be sourced: no such workspace"):
        enter(Setup(file), {"PATH": "/usr/bin:/bin"})


def test_a_distribution_without_rclpy_is_named(distributions: Path) -> None:
    file = distributions / "setup.bash"
    file.write_text("export AMENT_PREFIX_PATH=/nowhere\n")
    with pytest.raises(SetupError, match="has no rclpy: apt install"):
        enter(Setup(file), {"PATH": "/usr/bin:/bin"})


def test_leftovers_of_ended_processes_are_removed_and_those_in_use_stay(tmp_path: Path) -> None:
    ended = ["fastrtps_0a", "fastrtps_0a_el", "fastrtps_port7", "fastrtps_port7_el"]
    ended += ["sem.fastrtps_port7_mutex"]
    kept = ["fastrtps_0b", "fastrtps_0b_el", "dora-0a"]
    for name in (*ended, *kept):
        (tmp_path / name).touch()
    with (tmp_path / "fastrtps_0b_el").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert remove_leftovers(tmp_path) == len(ended)
        assert sorted(each.name for each in tmp_path.iterdir()) == sorted(kept)


def test_links_and_pipes_with_such_names_are_left_alone_and_keep_no_bridge_from_its_start(
    tmp_path: Path,
) -> None:
    own = tmp_path / "own"
    own.touch()
    (tmp_path / "fastrtps_0a_el").symlink_to(own)
    (tmp_path / "fastrtps_0b_el").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fastdds_0c_el")
    assert remove_leftovers(tmp_path) == 0
    assert len([*tmp_path.iterdir()]) == 4


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("fastrtps", "FASTRTPS_DEFAULT_PROFILES_FILE"),  # Jazzy knows no other one
        ("fastdds", "FASTDDS_DEFAULT_PROFILES_FILE"),  # with the former name, Kilted warns
    ],
)
def test_a_profile_is_given_by_the_name_that_the_distribution_knows(
    tmp_path: Path, package: str, name: str
) -> None:
    (tmp_path / "share" / package).mkdir(parents=True)
    variables = {"AMENT_PREFIX_PATH": f"{tmp_path / 'overlay'}:{tmp_path}"}
    use_profile(variables)
    (given,) = {*variables} - {"AMENT_PREFIX_PATH"}
    assert given == name and variables[given].endswith("fastdds.xml")


@pytest.mark.parametrize("name", ["FASTRTPS", "FASTDDS"])
def test_a_profile_of_the_user_stays(tmp_path: Path, name: str) -> None:
    variables = {f"{name}_DEFAULT_PROFILES_FILE": "mine.xml", "AMENT_PREFIX_PATH": str(tmp_path)}
    before = dict(variables)
    use_profile(variables)
    assert variables == before
