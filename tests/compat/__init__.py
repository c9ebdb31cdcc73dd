"""Node programs written for dora 1.x, under `dora run`."""
