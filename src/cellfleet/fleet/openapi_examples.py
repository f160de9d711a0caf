"""A whole example of every JSON body, put together from the examples of its fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_REF = "#/components/schemas/"


def add_examples(operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> None:
    """Give each JSON body of an operation, asked for or answered, an example.

    Args:
        operation: of the description; changed in place. Examples that are there stay.
        schemas: the description's schemas by name.

    Raises:
        LookupError: a field without an example; the text names it.
    """
    bodies = (operation.get("requestBody", {}), *operation.get("responses", {}).values())
    for body in bodies:
        media = body.get("content", {}).get("application/json")
        if media is not None and "example" not in media:
            media["example"] = example_of(media["schema"], schemas)


def example_of(schema: Mapping[str, Any], schemas: Mapping[str, Any], where: str = "") -> Any:
    """The example of a schema: its own one, or what its parts give.

    Args:
        schema: JSON Schema as pydantic writes it.
        schemas: what ``$ref`` leads to, by name.
        where: path of the field, for the error.

    Raises:
        LookupError: nothing says what it looks like.
    """
    if schema.get("examples"):
        return schema["examples"][0]
    for key in ("default", "const"):
        if schema.get(key) is not None:
            return schema[key]
    if "enum" in schema:
        return schema["enum"][0]
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_REF)
        return example_of(schemas[name], schemas, where or name)
    for one in (*schema.get("anyOf", ()), *schema.get("allOf", ())):
        if one.get("type") != "null":
            return example_of(one, schemas, where)
    if schema.get("type") == "array":
        return [example_of(schema["items"], schemas, f"{where}[0]")]
    if schema.get("type") == "object":
        return _of_fields(schema, schemas, where)
    if schema.get("type") == "boolean":
        return True
    raise LookupError(f"{where}: no example")


def _of_fields(schema: Mapping[str, Any], schemas: Mapping[str, Any], where: str) -> dict[str, Any]:
    required = set(schema.get("required", ()))
    found = {}
    for name, field in schema.get("properties", {}).items():
        try:
            found[name] = example_of(field, schemas, f"{where}.{name}")
        except LookupError:
            if name in required:
                raise
    return found
