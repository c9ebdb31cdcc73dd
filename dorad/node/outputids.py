"""The syntax of output ids."""

from __future__ import annotations


def well_formed(output_id: str) -> bool:
    """Return True if a dataflow file can declare an output with this id."""
    return all(
        part and all(c.isascii() and (c.isalnum() or c in "_.-") for c in part)
        for part in output_id.split("/")
    )


def check_output_id(output_id: object) -> None:
    """Raise TypeError or RuntimeError if no dataflow file can declare an output with this id."""
    if not isinstance(output_id, str):
        raise TypeError(f"output_id must be a str, got {type(output_id).__name__}")
    if not well_formed(output_id):
        raise RuntimeError(
            f"invalid output_id {output_id!r}: letters, digits and _ . - are allowed, "
            "and / between two of them"
        )
