"""A small contract with every feature of the lane, served without a database."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from domain.caller import Caller
from domain.errors import Conflict, Disabled, NotFound, Throttled, Unauthenticated, Unusable
from handlers.wire import Answer, File, Origin, Redirect, Stream, Text, Upload
from storage.database import Duplicate, StorageFull, StorageUnavailable

ENVELOPE = {
    "type": "object",
    "required": ["code", "message", "data", "timestamp"],
    "additionalProperties": False,
    "properties": {
        "code": {"type": "integer"},
        "message": {"type": "string"},
        "data": {"nullable": True},
        "timestamp": {"type": "number"},
    },
}
OK = {"description": "ok", "content": {"application/json": {"schema": ENVELOPE}}}
ANY: dict[str, Any] = {
    str(status): OK
    for status in (400, 401, 403, 404, 406, 409, 412, 413, 415, 422, 429, 500, 503, 507)
}


class ItemCreate(msgspec.Struct):
    name: str
    price: float
    tags: list[str] = []
    note: str | msgspec.UnsetType | None = msgspec.UNSET


def operation(operation_id: str, *, responses: dict[str, Any] | None = None, **more: Any) -> Any:
    return {
        "operationId": operation_id,
        "security": more.pop("security", [{"bearer": []}]),
        "responses": {"200": OK, **ANY} if responses is None else responses,
        **more,
    }


def json_body(schema: dict[str, Any], required: bool = True) -> dict[str, Any]:
    return {"required": required, "content": {"application/json": {"schema": schema}}}


def parameter(name: str, where: str, schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "in": where, "required": where == "path", "schema": schema, **more}


ITEM_ID = parameter("item_id", "path", {"type": "string", "maxLength": 64})
PUBLIC: list[Any] = []

DOCUMENT: dict[str, Any] = {
    "openapi": "3.0.3",
    "info": {"title": "shop", "version": "1"},
    "servers": [{"url": "/sage"}],
    "components": {
        "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        "schemas": {
            "ItemCreate": {
                "type": "object",
                "required": ["name", "price"],
                "additionalProperties": False,
                "properties": {
                    "name": {"type": "string", "minLength": 1, "maxLength": 20},
                    "price": {"type": "number", "minimum": 0},
                    "tags": {"type": "array", "items": {"type": "string"}},
                    "note": {"type": "string", "nullable": True},
                },
            }
        },
    },
    "paths": {
        "/items": {
            "get": operation(
                "item_list",
                parameters=[
                    parameter("page", "query", {"type": "integer", "minimum": 1, "default": 1}),
                    parameter("ratio", "query", {"type": "number"}),
                    parameter("all", "query", {"type": "boolean", "default": False}),
                    parameter(
                        "status",
                        "query",
                        {"type": "array", "items": {"type": "integer", "maximum": 9}},
                        **{"x-commas": True},
                    ),
                    parameter("X-Trace", "header", {"type": "string", "maxLength": 5}),
                ],
            ),
            "post": operation(
                "item_create", requestBody=json_body({"$ref": "#/components/schemas/ItemCreate"})
            ),
        },
        "/items/stats": {"get": operation("item_stats")},
        "/items/{item_id}": {
            "get": operation("item_get", parameters=[ITEM_ID], **{"x-etag": True}),
            "put": operation(
                "item_replace",
                parameters=[ITEM_ID],
                requestBody=json_body({"$ref": "#/components/schemas/ItemCreate"}, required=False),
                **{"x-etag": True},
            ),
            "delete": operation("item_delete", parameters=[ITEM_ID], **{"x-role": "admin"}),
        },
        "/files/{file_path}": {
            "get": operation(
                "file_get",
                parameters=[parameter("file_path", "path", {"type": "string"}, **{"x-tail": True})],
            )
        },
        "/uploads": {
            "post": operation(
                "upload_create",
                requestBody={
                    "required": True,
                    "content": {
                        "multipart/form-data": {
                            "schema": {
                                "type": "object",
                                "required": ["file"],
                                "properties": {
                                    "file": {"type": "string", "format": "binary"},
                                    "to": {"type": "string"},
                                    "public": {"type": "boolean", "default": False},
                                    "more": {
                                        "type": "array",
                                        "items": {"type": "string", "format": "binary"},
                                    },
                                },
                            }
                        },
                        "application/x-www-form-urlencoded": {
                            "schema": {"type": "object", "required": ["to"]}
                        },
                    },
                },
            )
        },
        "/downloads/{kind}": {
            "get": operation(
                "download_get",
                parameters=[parameter("kind", "path", {"type": "string"})],
                responses={
                    "200": {
                        "description": "a file",
                        "content": {
                            media: {"schema": {"type": "string", "format": "binary"}}
                            for media in ("application/octet-stream", "image/png", "image/svg+xml")
                        },
                    }
                },
            )
        },
        "/fail/{how}": {
            "get": operation(
                "fail_get",
                parameters=[parameter("how", "path", {"type": "string"})],
                security=PUBLIC,
                **{"x-soft": {"disabled": 400}, "x-code": {"unusable": 500, "thing.taken": 505}},
            )
        },
        "/stream": {
            "get": operation(
                "stream_get",
                security=PUBLIC,
                parameters=[parameter("n", "query", {"type": "integer", "default": 3})],
                responses={"200": {"description": "lines", "content": {"text/plain": {}}}},
            )
        },
        "/whoami": {"get": operation("me_get", security=PUBLIC)},
        "/text": {
            "get": operation(
                "text_get",
                security=PUBLIC,
                responses={"200": {"description": "text", "content": {"text/plain": {}}}},
            )
        },
        "/go": {
            "get": operation(
                "go_get", security=PUBLIC, responses={"302": {"description": "elsewhere"}}
            )
        },
        "/login": {
            "post": operation(
                "login_create",
                security=PUBLIC,
                requestBody=json_body({"type": "object"}),
                **{"x-rate-limit": "login", "x-idempotency": "none"},
            )
        },
        "/search": {
            "post": operation(
                "item_search", requestBody=json_body({"type": "object"}), **{"x-effect": "read"}
            )
        },
    },
}

created: list[dict[str, Any]] = []
closed: list[str] = []


async def item_list(
    caller: Caller, page: int, ratio: float, all: bool, status: list[int], x_trace: str
) -> Any:
    return {
        "who": caller.user_id,
        "page": page,
        "ratio": ratio,
        "all": all,
        "status": status,
        "trace": x_trace,
    }


async def item_create(caller: Caller, body: ItemCreate) -> Any:
    created.append({"who": caller.user_id, "name": body.name})
    return {"id": str(len(created)), "note": None if body.note is msgspec.UNSET else body.note}


async def item_stats() -> Any:
    return {"stats": True}


async def item_get(item_id: str) -> Any:
    return Answer({"id": item_id}, version=7)


async def item_replace(item_id: str, body: ItemCreate | None, if_match: int | None) -> Any:
    return Answer({"id": item_id, "body": body is not None, "match": if_match}, version=8)


async def item_delete(item_id: str) -> Any:
    return {"deleted": item_id}


async def file_get(file_path: str) -> Any:
    return {"path": file_path}


async def upload_create(body: dict[str, Any]) -> Any:
    file = body.get("file")
    if isinstance(file, Upload):
        size = len(b"".join([chunk async for chunk in file.chunks()]))
        kept: Any = file.file
        return {
            "name": file.filename,
            "size": size,
            "in_memory": not kept._rolled,
            "more": [(each.filename, each.size) for each in body.get("more", ())],
            "public": body["public"],
        }
    return {"to": body["to"]}


async def download_get(kind: str) -> File:
    async def source() -> AsyncIterator[bytes]:
        try:
            for _ in range(4):
                yield b"0123456789"
                if kind == "short":
                    raise OSError("the disk broke")
        finally:
            closed.append("file")

    return File(
        {"plain": 'a"b/../ü\r\nx.html', "image": "a.png"}.get(kind, "b.svg"),
        {"image": "image/png", "svg": "image/svg+xml"}.get(kind, "application/octet-stream"),
        source(),
        None if kind == "unsized" else 40,
        inline=kind in ("image", "svg"),
    )


async def fail_get(how: str) -> Any:
    raise {
        "disabled": lambda: Disabled("request.method"),
        "unusable": lambda: Unusable("request.method"),
        "taken": lambda: Conflict("thing.taken"),
        "missing": lambda: NotFound("request.not_found"),
        "throttled": lambda: Throttled("request.throttled", retry_after=9),
        "unknown": lambda: Unauthenticated("auth.required"),
        "duplicate": lambda: Duplicate("uq"),
        "full": StorageFull,
        "away": StorageUnavailable,
        "fault": lambda: RuntimeError("secret detail /etc/passwd"),
    }[how]()


async def stream_get(n: int) -> Stream:
    async def source() -> AsyncIterator[bytes]:
        try:
            for i in range(n):
                await asyncio.sleep(0.001)
                yield f"{i}\n".encode()
                if n == 13 and i == 5:
                    raise RuntimeError("broken off")
        finally:
            closed.append("closed")

    return Stream(source(), "text/plain; charset=utf-8", (("X-Run-Id", "r1"),))


async def me_get(caller: Caller, origin: Origin) -> Any:
    return {"id": caller.user_id, "address": origin.address, "language": origin.language}


async def text_get() -> Any:
    return Text("plain")


async def go_get() -> Any:
    return Redirect("/elsewhere")


async def login_create(body: dict[str, Any]) -> Any:
    return Answer({}, session="" if body.get("out") else "s-1", end_session=bool(body.get("out")))


async def item_search(caller: Caller, body: dict[str, Any]) -> Any:
    return {"role": caller.role, "asked": body}


HANDLERS = {
    handler.__name__: handler
    for handler in (
        item_list,
        item_create,
        item_stats,
        item_get,
        item_replace,
        item_delete,
        file_get,
        upload_create,
        download_get,
        fail_get,
        stream_get,
        me_get,
        text_get,
        go_get,
        login_create,
        item_search,
    )
}
BODIES = {"item_create": ItemCreate, "item_replace": ItemCreate}
ENVELOPED = frozenset(HANDLERS) - {"stream_get", "text_get", "go_get", "download_get"}
