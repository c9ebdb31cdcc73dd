"""Check a dataflow before it is started, changed or asked, as dorad would."""

from collections.abc import Sequence
from pathlib import Path

from dorad.control.errors import ControlError
from dorad.control.messages import Start
from dorad.control.messages.agent import ShareState
from dorad.dataflow.errors import DataflowError
from dorad.dataflow.model import Dataflow
from dorad.dataflow.support import MAX_NODES, TOO_MANY_HINT, too_many, unsupported
from dorad.dataflow.types.strict import change_problems
from dorafleet.coordinator.placement import Candidate
from dorafleet.coordinator.records import DataflowRecord
from dorafleet.coordinator.requirements import problems_of
from dorafleet.coordinator.verdicts import FINAL, current

MAX_HOLD_S = 3600.0


def check_start(params: Start) -> None:
    """Raise ControlError for a start that is impossible in a fleet."""
    nodes = params.descriptor.get("nodes")
    if isinstance(nodes, list) and len(nodes) > MAX_NODES:
        raise ControlError("refused", too_many(len(nodes)), TOO_MANY_HINT)
    if not Path(params.path).is_absolute():
        raise ControlError("bad-request", f"path {params.path!r} is not absolute")
    if params.share is not None or params.uuid is not None:
        raise ControlError("bad-request", "a coordinator chooses `uuid` and `share` itself")
    if params.hold is not None and not 0 < params.hold <= MAX_HOLD_S:
        raise ControlError("bad-request", f"`hold` must be above 0, at most {MAX_HOLD_S:g} seconds")
    if params.hot_reload:
        raise ControlError(
            "unsupported",
            "files are not reloaded on the machines of a fleet",
            "start it without `--hot-reload`",
        )


def check_going(record: DataflowRecord, robot: str, share: ShareState | None) -> None:
    """Raise ControlError if all nodes of a running dataflow have ended on a robot."""
    share = current(record, share)
    if record.running and share is not None and share.status in FINAL:
        raise ControlError(
            "not-found",
            f"all nodes of `{record.key}` on `{robot}` have ended ({share.status})",
            f"start all of them again with `dora restart {record.key}`",
        )


def check_names(dataflow: Dataflow, machines: Sequence[Candidate]) -> None:
    """Raise DataflowError for unknown machines, labels and nodes."""
    if problems := problems_of(dataflow, machines):
        raise DataflowError(problems)


def check_runnable(dataflow: Dataflow) -> None:
    """Raise DataflowError for problems that dorad would refuse."""
    if problems := [*unsupported(dataflow, placed=True), *change_problems(dataflow)]:
        raise DataflowError(problems)
