"""Checks that the arrays of each frame belong together, and were not copied."""

from arrays import unpack
from dora import Node


def main() -> None:
    """Print the shapes of the first frame, and a summary."""
    count, together, in_place = 0, True, True
    for event in Node():
        if event["type"] != "INPUT":
            continue
        arrays = unpack(event["value"], event["metadata"])
        if count == 0:
            print(*(f"{name} {each.shape} {each.dtype}" for name, each in arrays.items()), sep=", ")
        together &= all((each == count).all() for each in arrays.values())
        in_place &= not any(each.flags.owndata for each in arrays.values())
        count += 1
    print(f"{count} messages, belonging together: {together}, in place: {in_place}")


if __name__ == "__main__":
    main()
