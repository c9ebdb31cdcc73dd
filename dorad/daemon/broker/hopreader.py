"""The hop records of the nodes of a dataflow, and what the words in them stand for."""

from dorad.daemon.broker.edges import Edge, is_observer
from dorad.daemon.broker.mailbox import Mailbox
from dorad.daemon.broker.state import BrokerState
from dorad.dataflow.model import LINK
from dorad.dataflow.recording import HOPS_INPUT, is_recorder
from dorad.shm.hoplog import HopFields
from dorad.shm.hops import output_key
from dorad.trace.model import NodePlaces, Place


class HopReader:
    """Reads and removes the hop records of nodes. Has one user."""

    def __init__(self, state: BrokerState) -> None:
        self._state = state
        self.overwritten = self.damaged = 0
        """Records that were lost, also of nodes that were removed."""
        self._version = -1
        self._places: dict[str, NodePlaces] = {}

    def recorders(self) -> list[str]:
        """Return the recorders of the dataflow, which get the records."""
        return [name for name, box in self._state.mailboxes.items() if HOPS_INPUT in box.inputs]

    def unread(self) -> dict[str, int]:
        """Return the number of new records of each node that has any.

        Recorders and observers have no part in what a message is for.
        """
        return {
            name: count
            for name, box in self._state.mailboxes.items()
            if not (is_observer(name) or is_recorder(box.node)) and (count := box.unread_hops)
        }

    def read(self, node: str) -> list[HopFields]:
        """Return the new records of a node, those that were not overwritten."""
        box = self._state.mailboxes[node]
        before = box.hops
        records = box.read_hops()
        self.overwritten += box.hops.overwritten - before.overwritten
        self.damaged += box.hops.damaged - before.damaged
        return records

    def skip(self, node: str) -> int:
        """Pass over the new records of a node, and return their number."""
        return self._state.mailboxes[node].skip_hops()

    def places(self, node: str) -> NodePlaces:
        """Return what the words in the records of a node stand for now."""
        edges = self._state.edges
        if self._version != edges.version:
            self._version = edges.version
            self._places.clear()
        places = self._places.get(node)
        box = self._state.mailboxes[node]
        if places is None or len(places.rings) != len(box.rings):
            places = self._places[node] = _places(self._state, node, box)
        return places


def _places(state: BrokerState, node: str, box: Mailbox) -> NodePlaces:
    edges = {edge.ring: edge for edge in state.edges.received_by(node)}
    edges |= {edge.ring: edge for edge in state.edges.retiring if edge.consumer == node}
    sync = {name: group.name for group in box.node.sync for name in group.inputs}
    rings = {}
    for name, ring in box.rings.items():
        edge = edges.get(name)
        if edge is None:
            place = Place(ring.input, f"{node}/{ring.input}", tick=True)
        else:
            local = edge.source != LINK and not edge.daemon
            place = Place(ring.input, _topic(edge), local=local, sync=sync.get(ring.input, ""))
        rings[ring.plan.base] = place
    sent = {edge.output for edge in state.edges.reached_by(node)} | {*box.node.all_outputs}
    outputs = {
        output_key(output): output if node == LINK else f"{node}/{output}" for output in sent
    }
    return NodePlaces(rings, outputs, node == LINK)


def _topic(edge: Edge) -> str:
    # What comes over a link is named after the node that has sent it there.
    return edge.output if edge.source == LINK else f"{edge.source}/{edge.output}"
