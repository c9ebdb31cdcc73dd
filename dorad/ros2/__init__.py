"""The bridge to ROS 2: its definitions, its codecs, and the process that speaks both sides.

Its process runs in the Python of a ROS 2 installation, so it imports nothing but the standard
library, numpy, pyarrow, rclpy, and `dorad.node`.
"""
