"""Shows what the camera and the lidar send, until the navigator has ended."""

from dora import Node

seen = {}
for event in Node():
    if event["type"] == "INPUT" and event["id"] not in seen:
        seen[event["id"]] = event
        if event["id"] == "image":
            size = event["metadata"]["width"] * event["metadata"]["height"] * 2
            print("image:", event["metadata"]["encoding"], len(event["value"]) == size)
        else:
            print("scan:", event["value"].type, len(event["value"]), "rays")
