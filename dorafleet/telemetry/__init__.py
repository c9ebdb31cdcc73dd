"""Metrics of a fleet over OpenTelemetry: a process beside its coordinator."""
