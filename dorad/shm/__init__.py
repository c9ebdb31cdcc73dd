"""The data plane: rings, samples and doorbells in shared memory, without any process in between."""
