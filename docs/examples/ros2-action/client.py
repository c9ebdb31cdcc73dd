"""A node of ROS 2 without dora: sends three goals at once, and cancels the second."""

import rclpy
from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from test_msgs.action import Fibonacci

STATUS = {
    GoalStatus.STATUS_SUCCEEDED: "succeeded",
    GoalStatus.STATUS_CANCELED: "canceled",
    GoalStatus.STATUS_ABORTED: "aborted",
}


def main():
    """Print what becomes of the goals."""
    rclpy.init()
    node = rclpy.create_node("client")
    client = ActionClient(node, Fibonacci, "/fibonacci")
    client.wait_for_server()

    def wait(future):
        rclpy.spin_until_future_complete(node, future)
        return future.result()

    sent = [client.send_goal_async(Fibonacci.Goal(order=order)) for order in (8, 40, -1)]
    first, second, third = map(wait, sent)
    wait(second.cancel_goal_async())
    print(f"-1: {'accepted' if third.accepted else 'rejected'}")
    print(f"40: {STATUS[wait(second.get_result_async()).status]}")
    response = wait(first.get_result_async())
    print(f"8: {STATUS[response.status]}, {list(response.result.sequence)}")


if __name__ == "__main__":
    main()
