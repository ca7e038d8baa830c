"""What the OpenAPI document says beyond what FastAPI reads from signatures: bodies read by hand, and errors."""

from typing import Any

TEXT = {"type": "string"}
SHAPE = {"type": "array", "items": {"type": "integer"}}


def _body(schema: dict[str, Any], content_type: str = "application/json", *, required: bool = True) -> dict[str, Any]:
    return {"requestBody": {"required": required, "content": {content_type: {"schema": schema}}}}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


LOAD = _body(_object(["model_name", "url"], model_name={**TEXT, "minLength": 1}, url={**TEXT, "minLength": 1}))
INDEX = _body(_object([], ready={"type": "boolean"}), required=False)
TENSOR = _object(["name", "shape", "datatype"], name=TEXT, shape=SHAPE, datatype=TEXT, data={"type": "array"})
TENSORS = _body(_object(["inputs"], id=TEXT, inputs={"type": "array", "items": TENSOR}))
# What a model takes is its own business; the type of the body says how it is read.
ANY_BODY = _body({}, "*/*", required=False)

_ERROR = _object(["code", "type", "message"], code={"type": "integer"}, type=TEXT, message=TEXT)
_PROTOCOL_ERROR = _object(["error"], error=TEXT)
_CONTENT = {"application/json": {"schema": {"anyOf": [_ERROR, _PROTOCOL_ERROR, {"type": "object"}]}}}
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "The request is at fault; the message says how", "content": _CONTENT},
    "5XX": {"description": "The model or the server is at fault, or not ready", "content": _CONTENT},
}
