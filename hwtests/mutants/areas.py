"""The pure cores, and the tests that cover each of them.

A core's modules decide, and reach no process, socket or clock. Its tests call the modules in their
own process and are fast: those of an area take less than a minute.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Area:
    """Some modules, as patterns of paths, and the files or folders of their tests."""

    name: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]

    def paths(self, root: Path) -> list[str]:
        """Return its modules as paths below `root`.

        Raises:
            ValueError: a pattern fits no file.
        """
        paths: list[str] = []
        for pattern in self.modules:
            files = [each for each in sorted(root.glob(pattern)) if each.name != "__init__.py"]
            if not files:
                raise ValueError(f"area {self.name}: no module fits {pattern}")
            paths += [str(each.relative_to(root)) for each in files]
        return paths

    def test_files(self, root: Path) -> list[str]:
        """Return the files of its tests as paths below `root`."""
        files: list[str] = []
        for name in self.tests:
            path = root / name
            below = sorted(path.rglob("test_*.py")) if path.is_dir() else [path]
            files += [str(each.relative_to(root)) for each in below]
        return list(dict.fromkeys(files))


def _modules(folder: str, names: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}.py" for name in names.split())


AREAS = (
    Area(
        "rules",
        ("dorad/daemon/rules/*.py",),
        (
            "tests/daemon/rules",
            "tests/daemon/test_operator_ends.py",
            "tests/daemon/measuring/test_troubles.py",
        ),
    ),
    Area(
        "rollout",
        ("dorafleet/rollout/*.py", "dorafleet/coordinator/groups.py"),
        (
            "tests/fleet/rollout/test_verdicts.py",
            "tests/fleet/rollout/test_decide.py",
            "tests/fleet/rollout/test_instances.py",
            "tests/fleet/rollout/test_orders.py",
            "tests/fleet/rollout/test_phases.py",
            "tests/fleet/rollout/test_machine.py",
            "tests/fleet/rollout/test_model.py",
            "tests/fleet/rollout/test_plan.py",
            "tests/fleet/rollout/test_shown.py",
            "tests/fleet/rollout/test_rollouts.py",
            "tests/fleet/rollout/test_gates.py",
            "tests/fleet/rollout/test_groups.py",
            "tests/fleet/rollout/test_instances_model.py",
            "tests/fleet/rollout/test_cells.py",
            "tests/fleet/rollout/test_soak.py",
            "tests/fleet/rollout/test_strategy.py",
            "tests/fleet/rollout/test_summary.py",
        ),
    ),
    Area(
        "placement",
        _modules("dorafleet/coordinator", "placement requirements"),
        (
            "tests/fleet/coordinator/test_placement.py",
            "tests/fleet/coordinator/test_requirements.py",
            "tests/fleet/test_explain.py",
        ),
    ),
    Area(
        "delivery",
        _modules("dorafleet/coordinator", "requests verdicts"),
        (
            "tests/fleet/coordinator/test_requests.py",
            "tests/fleet/coordinator/test_verdicts.py",
        ),
    ),
    Area(
        "releases",
        (
            *_modules(
                "dorad/agent/assignments", "compose decide health model orders runs steps switch"
            ),
            *_modules("dorad/release", "changes frames machine manifest"),
        ),
        (
            "tests/agent/assignments/test_compose.py",
            "tests/agent/assignments/test_decide.py",
            "tests/agent/assignments/test_steps.py",
            "tests/agent/assignments/test_return.py",
            "tests/agent/assignments/test_soak.py",
            "tests/agent/assignments/test_notices.py",
            "tests/agent/assignments/test_health.py",
            "tests/agent/assignments/test_properties.py",
            "tests/agent/assignments/test_command.py",
            "tests/agent/assignments/test_forgetting.py",
            "tests/agent/assignments/test_group.py",
            "tests/agent/assignments/test_cell_properties.py",
            "tests/agent/assignments/test_runs.py",
            "tests/agent/assignments/test_convergence.py",
            "tests/release/test_changes.py",
            "tests/release/test_manifest.py",
            "tests/release/test_receive.py",
            "tests/release/test_repair.py",
            "tests/release/test_signature.py",
        ),
    ),
    Area(
        "link",
        _modules(
            "dorad/link",
            "access admission arrivals channels delivery forward frames greeting hello incoming"
            " numbering outgoing pace reports",
        ),
        (
            "tests/link/test_admission.py",
            "tests/link/test_pace.py",
            "tests/link/test_frames.py",
            "tests/link/test_greeting.py",
            "tests/link/test_channels.py",
            "tests/link/test_direct.py",
            "tests/link/test_delivery.py",
            "tests/link/test_arrivals.py",
            "tests/link/test_identity.py",
            "tests/link/test_session.py",
            "tests/link/test_silence.py",
            "tests/link/test_kills.py",
            "tests/daemon/rules/test_links.py",
        ),
    ),
    Area(
        "record",
        (
            *_modules("dorad/record", "compare diff"),
            *_modules("dorad/record/encoding", "messages"),
            *_modules("dorad/record/mcap", "chunk items"),
            *_modules("dorad/record/recorder", "inputs outcome session settings"),
            *_modules("dorad/record/replay", "checker plan"),
        ),
        (
            "tests/record/mcap/test_chunk.py",
            "tests/record/encoding/test_encoding.py",
            "tests/record/test_compare.py",
            "tests/record/recorder/test_outcome.py",
            "tests/record/mcap/test_small.py",
            "tests/record/replay/test_replay_plan.py",
            "tests/record/replay/test_rewire.py",
            "tests/record/test_edit.py",
            "tests/record/mcap/test_file.py",
            "tests/record/recorder/test_inputs.py",
            "tests/record/recorder/test_recorder.py",
            "tests/record/recorder/test_session.py",
            "tests/record/box/test_ring.py",
            "tests/record/test_ranges.py",
            "tests/record/recorder/test_record_block.py",
            "tests/record/test_hostile.py",
            "tests/record/box/test_incidents.py",
            "tests/record/recorder/test_ticks.py",
            "tests/record/recorder/test_times.py",
            "tests/record/recorder/test_attach.py",
            "tests/record/test_commands.py",
        ),
    ),
)
