"""Drives as fast as the distance allows, and stops without a distance."""

from dora import Node


def main() -> None:
    """Print each change of the speed."""
    distance, printed = None, None
    for event in Node():
        match event["type"], event.get("id"):
            case "INPUT", "distance":
                distance = event["value"][0].as_py()
            case "INPUT_CLOSED", "distance":
                distance = None
                print(f"closed: {event['reason']}")
                if event["reason"] == "finished":
                    break
            case "INPUT_RECOVERED", "distance":
                print("recovered")
            case "INPUT", "tick":
                speed = "stop" if distance is None else f"drive at {distance / 3:.1f} m/s"
                if speed != printed:
                    print(speed)
                printed = speed


if __name__ == "__main__":
    main()
