"""Read and set parameters of another node: parameters.py NODE. Prints one line of JSON."""

import json
import sys

import rclpy
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient

TIMEOUT_S = 60


def main():
    (target,) = sys.argv[1:]
    rclpy.init()
    node = rclpy.create_node("reader")
    client = AsyncParameterClient(node, target)
    if not client.wait_for_services(TIMEOUT_S):
        sys.exit(f"no parameters of {target}")

    def answer(future):
        rclpy.spin_until_future_complete(node, future, timeout_sec=TIMEOUT_S)
        return future.result()

    names = ["speed", "waypoints", "key", "name"]
    values = answer(client.get_parameters(names)).values
    read = [
        values[0].double_value,
        list(values[1].double_array_value),
        b"".join(values[2].byte_array_value).hex(),
        values[3].string_value,
    ]
    results = answer(
        client.set_parameters([Parameter("speed", value=4.5), Parameter("name", value=7)])
    ).results
    print(json.dumps([read, [each.successful for each in results]]), flush=True)


main()
