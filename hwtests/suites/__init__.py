"""The suites of tests that CI runs, and those of the night: `make gate`, `make nightly`."""
