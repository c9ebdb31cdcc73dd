"""Classes and message objects of rclpy. It is imported when they are used: nodes start without."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dorad.ros2.definitions import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Callable


def ros_class(name: str, kind: str) -> Any:
    """Return the Python class of the type `pkg/Name`. Raises DefinitionError."""
    package, _, base = name.partition("/")
    try:
        return getattr(import_module(f"{package}.{kind}"), base)
    except (ImportError, AttributeError) as error:
        raise DefinitionError(f"{package}/{kind}/{base} cannot be imported: {error}") from error


def to_array(message: Any, decode: Callable[[bytes], Any]) -> Any:
    """Return the array of a message object of rclpy. Raises CdrError."""
    from rclpy.serialization import serialize_message

    return decode(serialize_message(message))


def from_array(array: Any, encode: Callable[[Any], bytes], kind: Any) -> Any:
    """Return the message object of a class of rclpy. Raises ConversionError."""
    from rclpy.serialization import deserialize_message

    return deserialize_message(encode(array), kind)
