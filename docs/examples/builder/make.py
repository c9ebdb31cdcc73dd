"""Writes chain.yml: a source, as many stages as the command line says, and a sink."""

import sys

from dora.builder import DataflowBuilder


def main() -> None:
    """Write the file."""
    stages = int(sys.argv[1])
    with DataflowBuilder() as flow:
        number = flow.add_node("source").path("source.py").add_output("number")
        for place in range(stages):
            stage = flow.add_node(f"stage-{place}").path("stage.py")
            stage.add_input("number", number)
            number = stage.add_output("number")
        sink = flow.add_node("sink").path("sink.py").args(str(stages))
        sink.add_input("number", number)
        flow.to_yaml("chain.yml")


if __name__ == "__main__":
    main()
