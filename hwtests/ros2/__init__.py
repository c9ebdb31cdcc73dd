"""The bridge to ROS 2, measured beside rclpy."""
