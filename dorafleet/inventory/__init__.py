"""cluster.yml as data: which machines there are and how to reach them. Nothing here is sent."""
