"""The JSON schema of the configuration file, for editors.

python -m conclave.gateway.policy.schema > config/schema.json
"""

import json
import sys
from typing import Any

from conclave.gateway.settings import ConfigFile


def json_schema() -> dict[str, Any]:
    """The schema of the whole file; a key may be left without a value, which means its default."""
    schema = ConfigFile.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Conclave configuration"
    for part in (schema, *schema["$defs"].values()):
        for name, field in part.get("properties", {}).items():
            if name not in part.get("required", ()):
                part["properties"][name] = _or_empty(field)
    return schema


def _or_empty(field: dict[str, Any]) -> dict[str, Any]:
    """The field, or nothing after its colon."""
    if any(option.get("type") == "null" for option in field.get("anyOf", ())):
        return field
    outer: dict[str, Any] = {key: field.pop(key) for key in ("default", "description", "title") if key in field}
    return {"anyOf": [field, {"type": "null"}], **outer}


def text() -> str:
    """The schema as it stands in config/schema.json."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
