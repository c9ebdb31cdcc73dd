"""Dataflows to draw: the sizes that the page must be readable with."""

from typing import Any

import yaml


def layered(count: int, width: int = 8) -> str:
    """Return a dataflow of `count` nodes: stages, each of which reads from the ones before it.

    The edges are those of a robot: mostly from the stage before, some over many stages, a few back.
    """
    nodes: list[dict[str, Any]] = []
    for number in range(count):
        stage, place = divmod(number, width)
        inputs: dict[str, str] = {}
        if stage == 0:
            inputs["tick"] = f"dora/timer/hz/{10 * (1 + place % 3)}"
        else:
            above = (stage - 1) * width
            inputs["data"] = f"n{above + place}/out"
            if number % 3 == 0:
                inputs["beside"] = f"n{above + (place + 1) % width}/out"
            if number % 11 == 0 and stage > 2:
                inputs["early"] = f"n{(stage - 3) * width + place}/out"
        nodes.append(
            {
                "id": f"n{number}",
                "path": f"nodes/stage{stage}.py",
                "inputs": inputs,
                "outputs": ["out"],
            }
        )
    if count > 2 * width:
        nodes[width]["inputs"]["feedback"] = f"n{2 * width}/out"
    return yaml.safe_dump({"nodes": nodes}, sort_keys=False)


SMALL = """\
nodes:
  - {id: camera, path: camera.py, inputs: {tick: dora/timer/hz/30}, outputs: [image]}
  - {id: detector, path: detector.py, outputs: [boxes],
     inputs: {image: {source: camera/image, queue_size: 1, queue_policy: backpressure}}}
  - {id: planner, path: planner.py, outputs: [plan],
     inputs: {boxes: detector/boxes, state: arm/state}}
  - {id: arm, path: dynamic, inputs: {plan: planner/plan}, outputs: [state]}
  - {id: logger, path: logger.py, inputs: {image: camera/image, plan: planner/plan}}
"""
