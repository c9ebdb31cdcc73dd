"""What robots can run, also those that are off, over the end of a coordinator."""

from dorad.release.manifest import Target
from dorafleet.release.targets import target_of, without_covered

from .serving import leading


async def listed(fleet):
    return {each.id: each for each in (await fleet.call("robot.list")).robots}


async def test_what_a_robot_can_run_is_known_while_it_is_off_also_to_the_next_coordinator(tmp_path):
    async with leading(tmp_path) as fleet:
        agent = await fleet.agent("arm1")
        await fleet.disconnect(agent)
        found = await listed(fleet)
        assert (found["arm1"].python, found["arm1"].glibc) == ("3.13", "2.41")
        assert (found["arm2"].arch, found["arm2"].python) == ("", "")
    async with leading(tmp_path) as fleet:
        robot = (await listed(fleet))["arm1"]
        assert (robot.python, robot.glibc) == ("3.13", "2.41")
        assert robot.arch
        agent = await fleet.agent("arm1")
        await fleet.disconnect(agent)
        agent.python = "3.14"
        await fleet.connect(agent)
        assert (await listed(fleet))["arm1"].python == "3.14"


def test_what_a_robot_makes_up_is_no_target():
    assert target_of("x86_64", "3.13", "2.41") == Target("x86_64", "3.13", "2.41")
    for arch, python, glibc in (
        ("", "", ""),
        ("x86_64", "", ""),  # an older agent does not say more
        ("x86_64\n", "3.13", "2.41"),
        ("x86_64", "3.13; rm", "2.41"),
        ("x86_64", "3.13", "two"),
    ):
        assert target_of(arch, python, glibc) is None


def test_machines_that_run_what_is_made_for_another_target_need_none_of_their_own():
    wide, new = Target("x86_64", "3.13", "2.28"), Target("x86_64", "3.13", "2.41")
    arm = Target("aarch64", "3.13", "2.41")
    assert without_covered([new, arm], [wide]) == [arm]
    assert without_covered([wide], [new]) == [wide]
    assert without_covered([Target("x86_64", "3.12", "2.41")], [wide]) != []
    assert without_covered([new], [Target("x86_64")]) == []
