"""The pure cores, and the tests that cover each of them.

A core's modules decide, and reach no process, socket or clock. Its tests call the modules in their
own process and are fast: those of an area take less than a minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
        ("dorafleet/rollout/*.py",),
        (
            "tests/fleet/rollout/test_verdicts.py",
            "tests/fleet/rollout/test_decide.py",
            "tests/fleet/rollout/test_machine.py",
            "tests/fleet/rollout/test_model.py",
            "tests/fleet/rollout/test_plan.py",
            "tests/fleet/rollout/test_shown.py",
            "tests/fleet/rollout/test_rollouts.py",
            "tests/fleet/rollout/test_gates.py",
            "tests/fleet/rollout/test_instances_model.py",
            "tests/fleet/rollout/test_cells.py",
            "tests/fleet/rollout/test_soak.py",
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
        "reconcile",
        _modules("dorafleet/coordinator", "reconcile"),
        (
            "tests/fleet/coordinator/test_reconcile_cases.py",
            "tests/fleet/coordinator/test_reconcile.py",
        ),
    ),
    Area(
        "releases",
        (
            *_modules("dorad/agent/releases", "compose decide health model orders steps switch"),
            *_modules("dorad/release", "changes frames machine manifest"),
        ),
        (
            "tests/agent/releases/test_compose.py",
            "tests/agent/releases/test_decide.py",
            "tests/agent/releases/test_return.py",
            "tests/agent/releases/test_soak.py",
            "tests/agent/releases/test_notices.py",
            "tests/agent/releases/test_health.py",
            "tests/agent/releases/test_properties.py",
            "tests/agent/releases/test_command.py",
            "tests/agent/releases/test_forgetting.py",
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
            "tests/link/test_delivery.py",
            "tests/link/test_arrivals.py",
            "tests/link/test_identity.py",
            "tests/link/test_session.py",
            "tests/link/test_silence.py",
            "tests/link/test_kills.py",
        ),
    ),
    Area(
        "record",
        _modules(
            "dorad/record",
            "check chunk clock compare diff encoding items outcome receive recorded rewire"
            " settings small ticks triggers",
        ),
        (
            "tests/record/test_encoding.py",
            "tests/record/test_compare.py",
            "tests/record/test_small.py",
            "tests/record/test_replay_plan.py",
            "tests/record/test_edit.py",
            "tests/record/test_file.py",
            "tests/record/test_receive.py",
            "tests/record/test_recorder.py",
            "tests/record/test_ring.py",
            "tests/record/test_ranges.py",
            "tests/record/test_record_block.py",
            "tests/record/test_hostile.py",
            "tests/record/test_incidents.py",
            "tests/record/test_ticks.py",
            "tests/record/test_times.py",
            "tests/record/test_attach.py",
            "tests/record/test_commands.py",
        ),
    ),
)
