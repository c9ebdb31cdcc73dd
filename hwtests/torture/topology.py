"""Which nodes there are and who sends to whom: a random dataflow without cycles."""

from pathlib import Path
from random import Random

from dorad.dataflow.model import Dataflow, Input, NodeKind, NodeOutput, NodeSpec, QueuePolicy

QUEUE_SIZES = (1, 1, 2, 3, 10, 10, 50)


def random_dataflow(rng: Random, count: int) -> Dataflow:
    """Return `count` nodes (>= 2), each receiving from nodes before it.

    About a third are sources. Every source has a subscriber; most outputs have several, with queues
    of different sizes and policies.
    """
    sources = max(1, count // 3)
    inputs: list[list[Input]] = [[] for _ in range(count)]
    outputs: list[tuple[str, ...]] = [("a", "b")[: rng.choice((1, 1, 2))] for _ in range(count)]
    used: set[tuple[int, str]] = set()

    def connect(producer: int, output: str, consumer: int) -> None:
        source = NodeOutput(f"n{producer}", output)
        policy = QueuePolicy.BACKPRESSURE if rng.random() < 0.35 else QueuePolicy.DROP_OLDEST
        name = f"i{len(inputs[consumer])}"
        inputs[consumer].append(Input(name, source, rng.choice(QUEUE_SIZES), policy))
        used.add((producer, output))

    for consumer in range(sources, count):
        for _ in range(rng.randint(1, 3)):
            producer = rng.randrange(consumer)
            connect(producer, rng.choice(outputs[producer]), consumer)
    for producer in range(count - 1):
        for output in outputs[producer]:
            if (producer, output) not in used:
                connect(producer, output, rng.randrange(max(producer + 1, sources), count))
    nodes = tuple(
        NodeSpec(
            f"n{number}",
            NodeKind.PATH,
            path="node.py",
            inputs=tuple(inputs[number]),
            outputs=tuple(o for o in outputs[number] if (number, o) in used),
        )
        for number in range(count)
    )
    return Dataflow(nodes, Path("torture.yml"), Path("/"))
