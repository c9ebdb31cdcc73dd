"""cluster.yml as data: the machines, and how to reach them."""
