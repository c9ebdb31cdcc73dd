"""Orders and runs for tests of the agent."""

from dorad.agent.assignments.runs import Run
from dorad.control.messages import DataflowInfo, DataflowState, Share
from dorad.control.messages.agent import ShareContent, ShareSet

UUID = "00000000-0000-4000-8000-000000000001"
NODE = {"nodes": [{"id": "a", "path": "a.py"}]}


def order(generation=1, *, epoch=1, enabled=True, uuid=UUID, dataflow="flow", **more):
    """Return an order; `descriptor`, `path`, `listen` and `connect` go into its content."""
    share = Share(
        machine="arm1",
        placement={"a": "arm1"},
        listen=more.pop("listen", []),
        connect=more.pop("connect", []),
    )
    content = ShareContent(
        uuid=uuid,
        descriptor=more.pop("descriptor", NODE),
        path=more.pop("path", "/tmp/flow.yml"),
        share=share,
    )
    return ShareSet(
        epoch=epoch,
        generation=generation,
        dataflow=dataflow,
        enabled=enabled,
        content=content,
        **more,
    )


def run(status="running", *, uuid=UUID, started_at=1.0, ready=False, links=None, interrupted=False):
    info = DataflowInfo(
        uuid=uuid,
        name="flow",
        status=status,
        nodes=1,
        cpu=0,
        memory=0,
        started_at=started_at,
        interrupted=interrupted,
    )
    state = DataflowState(
        uuid=uuid, name="flow", status=status, ready=ready, links={} if links is None else links
    )
    return Run(info, state)
