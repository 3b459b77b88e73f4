"""The reference of the JSON events, generated from their schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from docs._generate.included import SCHEMA


def reference() -> str:
    """Return a section with a table of fields for each event."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    parts = [schema["description"]]
    for event in schema["oneOf"]:
        fields = event["properties"]
        names = fields["event"].get("enum") or [fields["event"]["const"]]
        status = fields.get("status", {}).get("const")
        title = " and ".join(f"`{name}`" for name in names) + (f", status `{status}`" if status else "")
        anchor = "-".join([names[0], *([status] if status else [])])
        parts += [f"## {title} {{#{anchor}}}", event["description"], "\n".join(table(event, schema["$defs"]))]
    return "\n\n".join(parts)


def table(event: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[str]:
    """Yield the rows of a table: the name, type and meaning of each field, and whether it is optional."""
    yield from ["| field | type | meaning |", "| --- | --- | --- |"]
    for name, kind, text in fields(event, definitions):
        yield f"| `{name}` | {kind} | {text} |"


def fields(thing: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield the name, type and description of each field; nested fields are prefixed with its name."""
    required = set(thing.get("required", [])) | {"event"}
    for name, field in thing["properties"].items():
        whole = definitions[field["$ref"].rpartition("/")[2]] if "$ref" in field else field
        optional = "" if name in required else "optional"
        text = ". ".join(filter(None, [optional, whole.get("description", "")]))
        yield name, kind_of(whole), text.replace("|", "\\|")
        values = whole.get("additionalProperties")
        if isinstance(values, Mapping) and "properties" in values:
            for inner, kind, about in fields(values, definitions):
                if inner != "event":
                    yield f"{name}.STEM.{inner}", kind, about


def kind_of(field: Mapping[str, Any]) -> str:
    """Return a field's type in words."""
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return ", ".join(f"`{json.dumps(value)}`" for value in field["enum"])
    names = [field["type"]] if isinstance(field["type"], str) else field["type"]
    words = " or ".join(names)
    if words == "array":
        return f"array of {field['items']['type']}s"
    if words == "object":
        values = field.get("additionalProperties", {})
        return f"object of {values.get('type', 'value')}s"
    return f"{words}, at least {field['minimum']}" if "minimum" in field else words
