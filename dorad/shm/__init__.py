"""The data plane: rings, samples and doorbells in shared memory; no process in between."""
