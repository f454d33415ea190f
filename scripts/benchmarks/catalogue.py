"""The 400 routes that every comparator serves: 4 APIs of 20 resources with 5 operations each.

All do the same work: the same session check, the same body schema, the same bytes out.
"""

import functools
import json
from typing import Any

APIS = ("sage", "sandbox", "assistant", "fleet")
RESOURCES = 20
TOKEN = "a" * 40
SESSIONS = {TOKEN: "user-1"}

ITEM: dict[str, Any] = {
    "id": "0199f0a1-0000-7000-8000-000000000001",
    "name": "Research Agent",
    "description": "Handles market research and writes it down.",
    "owner": "user-1",
    "price": 12.5,
    "count": 3,
    "active": True,
    "kind": "basic",
    "tags": ["alpha", "beta", "gamma"],
    "limits": {"requests": 100, "tokens": 4000, "ratio": 0.75},
    "created_at": 1710000000.123,
    "updated_at": 1710000000.123,
}
LIST_LENGTH = 50

CREATE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["name", "price", "count", "active", "kind", "tags", "limits"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 100},
        "description": {"type": "string", "maxLength": 1000},
        "price": {"type": "number", "minimum": 0},
        "count": {"type": "integer", "minimum": 0, "maximum": 1000000},
        "active": {"type": "boolean"},
        "kind": {"type": "string", "enum": ["basic", "team", "pro"]},
        "tags": {"type": "array", "maxItems": 20, "items": {"type": "string", "maxLength": 50}},
        "limits": {
            "type": "object",
            "required": ["requests", "tokens", "ratio"],
            "additionalProperties": False,
            "properties": {
                "requests": {"type": "integer", "minimum": 0},
                "tokens": {"type": "integer", "minimum": 0},
                "ratio": {"type": "number", "minimum": 0, "maximum": 1},
            },
        },
    },
}
BODY = json.dumps({k: ITEM[k] for k in CREATE_SCHEMA["properties"]}).encode()


@functools.cache
def resources(api: str) -> list[str]:
    return [f"{api}_thing{number}" for number in range(RESOURCES)]


_ITEMS = [{**ITEM, "tags": list(ITEM["tags"]), "limits": dict(ITEM["limits"])} for _ in range(100)]


def item() -> dict[str, Any]:
    """What the data layer gives back: rows that it has at hand, so that frameworks are compared."""
    return _ITEMS[0]


def items(limit: int) -> list[dict[str, Any]]:
    return _ITEMS[:limit]


def document(api: str) -> dict[str, Any]:
    """The OpenAPI document of one API."""
    secured = [{"bearer": []}]

    def responses() -> dict[str, Any]:
        return {"200": {"description": "ok", "content": {"application/json": {"schema": {}}}}}

    item_id = {"name": "item_id", "in": "path", "required": True, "schema": {"type": "string"}}
    limit = {
        "name": "limit",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": LIST_LENGTH},
    }
    body = {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ItemCreate"}}},
    }
    paths: dict[str, Any] = {}
    for name in resources(api):

        def operation(verb: str, name: str = name, **more: Any) -> dict[str, Any]:
            return {
                "operationId": f"{name}_{verb}",
                "security": secured,
                "responses": responses(),
                **more,
            }

        paths[f"/api/{name}"] = {
            "get": operation("list", parameters=[limit]),
            "post": operation("create", requestBody=body),
        }
        paths[f"/api/{name}/{{item_id}}"] = {
            "get": operation("get", parameters=[item_id]),
            "put": operation("replace", parameters=[item_id], requestBody=body),
            "delete": operation("delete", parameters=[item_id]),
        }
    return {
        "openapi": "3.0.3",
        "info": {"title": api, "version": "1"},
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": {"ItemCreate": CREATE_SCHEMA},
        },
    }
