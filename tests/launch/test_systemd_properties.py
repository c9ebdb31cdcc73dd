"""Properties of units, exits and names, as plain values."""

import os
from pathlib import Path
from typing import Any

import pytest

from dorad.dataflow.settings import Resources
from dorad.launch.model import Command, Exit, Identity
from dorad.launch.systemd import names
from dorad.launch.systemd.properties import environment, properties, tag_of, without
from dorad.launch.systemd.units import exit_of, is_transient, why_not_started
from dorad.realtime.memory import CAP_IPC_LOCK
from dorad.realtime.refusal import CAP_SYS_NICE
from dorad.realtime.schedule import SCHED_DEADLINE, Schedule

TAG = "0b5e1d4e-0000-0000-0000-000000000000/camera/0"
FILE = "/run/dorad/environments/x"


def requested(command: Command, **options: Any) -> dict[str, Any]:
    found = properties(command, TAG, environment_file=FILE, **options)
    assert len({name for name, _, _ in found}) == len(found)
    return {name: value for name, _, value in found}


def command(**fields: Any) -> Command:
    return Command(("/bin/node", "$HOME", "%n"), Path("/srv"), **fields)


def test_arguments_reach_the_program_unchanged() -> None:
    values = requested(command())
    assert values["ExecStartEx"] == [
        ["/bin/node", ["/bin/node", "$HOME", "%n"], ["no-env-expand"]],
    ]


@pytest.mark.parametrize(
    ("user", "sandbox", "separated"),
    [
        ("dorad-df01", True, True),
        ("dorad-df01", False, False),
        ("", True, False),
        ("root", True, False),
    ],
)
def test_nodes_in_the_sandbox_are_separated_from_others_of_their_user(
    user: str, sandbox: bool, separated: bool
) -> None:
    values = requested(command(identity=Identity(user), sandbox=sandbox))
    ((program, argv, _),) = values["ExecStartEx"]
    assert program == argv[0]
    assert argv[-3:] == ["/bin/node", "$HOME", "%n"]
    assert ("separate" in argv) == separated
    assert (argv == ["/bin/node", "$HOME", "%n"]) == (not separated)


def test_administrators_and_the_next_daemon_can_identify_a_unit() -> None:
    values = requested(command(dataflow_name="nav"))
    assert values["Description"] == "Node camera of dataflow nav"
    assert tag_of(values["LogExtraFields"]) == TAG
    assert b"DORA_NODE=camera" in values["LogExtraFields"]
    assert tag_of([b"DORA_NODE=camera"]) is None


def test_variables_of_the_daemons_service_are_not_passed_on() -> None:
    env = {"NOTIFY_SOCKET": "x", "LISTEN_FDS": "1", "HOME": "/root", "USER": "root", "A": "b"}
    own = {"HOME": "/root", "USER": "other"}
    assert environment(command(env=env, identity=Identity("dorad-node")), own) == {
        "USER": "root",
        "A": "b",
    }
    assert environment(command(env=env), own)["HOME"] == "/root"


def test_no_property_holds_a_variable_of_the_node() -> None:
    values = requested(command(env={"TOKEN": "hunter2"}, identity=Identity("dorad-node")))
    assert values["EnvironmentFiles"] == [[FILE, False]]
    assert "hunter2" not in repr(values)
    assert values["User"] == "dorad-node"


def test_cores_are_a_mask() -> None:
    assert requested(command(), cores=(0, 3, 9))["CPUAffinity"] == bytes([0b1001, 0b10])


def test_resources_are_limits() -> None:
    wanted = Resources(memory_max=1 << 20, cpu_quota=1.5, tasks_max=7, io_weight=10)
    values = requested(command(resources=wanted))
    assert values["MemoryMax"] == 1 << 20
    assert values["CPUQuotaPerSecUSec"] == 1_500_000
    assert values["TasksMax"] == 7
    assert values["IOWeight"] == 10
    assert "MemoryHigh" not in values


def test_a_real_time_policy_can_be_left_out_again() -> None:
    wanted = command(schedule=Schedule(os.SCHED_FIFO, 30, 1))
    found = properties(wanted, TAG, environment_file=FILE)
    values = {name: value for name, _, value in found}
    assert (values["CPUSchedulingPolicy"], values["CPUSchedulingPriority"]) == (os.SCHED_FIFO, 30)
    assert values["LimitMEMLOCK"] == 2**64 - 1
    assert not [n for n, _, _ in without(found, "CPUScheduling") if n.startswith("CPUScheduling")]


def test_locked_memory_works_even_if_systemd_cannot_raise_the_limit() -> None:
    found = requested(command(schedule=Schedule(lock_memory=1)))
    assert found["AmbientCapabilities"] == 1 << CAP_IPC_LOCK
    both = requested(command(schedule=Schedule(SCHED_DEADLINE, 0, 1, 1, 2, 3)))
    assert both["AmbientCapabilities"] == 1 << CAP_IPC_LOCK | 1 << CAP_SYS_NICE
    assert "AmbientCapabilities" not in requested(command(schedule=Schedule(os.SCHED_FIFO, 30)))


def test_a_deadline_is_set_by_a_program_that_executes_the_node() -> None:
    wanted = Schedule(SCHED_DEADLINE, runtime_ns=1, deadline_ns=2, period_ns=3)
    _, argv, _ = requested(command(schedule=wanted))["ExecStartEx"][0]
    assert argv[-3:] == ["/bin/node", "$HOME", "%n"]
    assert len(argv) > 3


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"ExecMainCode": 0, "ExecMainStatus": 0}, None),
        ({"ExecMainCode": 1, "ExecMainStatus": 3}, Exit(code=3)),
        ({"ExecMainCode": 2, "ExecMainStatus": 9}, Exit(signal=9)),
        ({"ExecMainCode": 3, "ExecMainStatus": 11}, Exit(signal=11)),
    ],
)
def test_an_exit_is_read(values: dict[str, int], expected: Exit | None) -> None:
    assert exit_of(values) == expected


def test_a_failed_start_has_a_readable_reason() -> None:
    command = Command(("/bin/true",), Path("/root/first"), identity=Identity("dorad-node"))
    assert "executed" in why_not_started({"ExecMainCode": 1, "ExecMainStatus": 203}, command)
    assert "timeout" in why_not_started({"Result": "timeout"}, command)
    closed = why_not_started({"ExecMainCode": 1, "ExecMainStatus": 200}, command)
    assert closed.startswith("its user `dorad-node` may not enter /root/first (move the dataflow")


def test_names_of_units_contain_only_valid_characters() -> None:
    name = names.unit_name("nav", "cam@ära/x", 12)
    assert name == "dorad-nav-cam\\x40\\xc3\\xa4ra\\x2fx-12.service"
    assert names.number_of(name) == 12
    assert names.number_of("dorad-x.service") == 0
    assert len(names.unit_name("d" * 500, "@" * 500, 1)) < 255
    assert names.object_path("dorad-a.service").endswith("/dorad_2da_2eservice")


def test_secrets_are_files_that_systemd_reads_and_no_property_has_a_value() -> None:
    values = requested(command(secrets={"api-key": Path("/run/dorad-agent/secrets/api-key")}))
    assert values["LoadCredential"] == [["api-key", "/run/dorad-agent/secrets/api-key"]]
    assert "LoadCredential" not in requested(command())


def test_a_start_that_fails_for_a_secret_says_so_and_may_be_repeated() -> None:
    values = {"ExecMainCode": 1, "ExecMainStatus": 243}
    assert "secrets" in why_not_started(values, command())
    assert is_transient(values)
