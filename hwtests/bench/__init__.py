"""The benchmark against peers: the same node files under our ``dora run`` and under dora 1.1.0."""
