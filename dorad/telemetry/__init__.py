"""Metrics, logs and traces over OpenTelemetry, from a process of their own.

Only that process imports OpenTelemetry: no node, no daemon and no command does. `settings` and
`feed` are for others, too.
"""
