"""Bodies: bounded, in time, of a type that was agreed on, and parsed or refused with the field that is wrong."""

from __future__ import annotations

import asyncio
import re
import zlib

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from starlette.requests import Request

from libs.common.connect.methods import Method
from libs.common.errors import Invalid

SECONDS = 10.0
DEEPEST = 32
_FIELD = re.compile(r'(?:named "([^"]{1,80})"|parse ([\w.\[\]]{1,80}) field)')


def media_type(request: Request) -> str:
    """The type of a body without its parameters, in small letters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read(request: Request, largest: int, *, gzip: bool = False) -> bytes:
    """The whole body, unpacked when `gzip` may be. Raises Invalid for more than `largest` bytes, or one too slow."""
    packing = request.headers.get("content-encoding", "identity").strip().lower()
    if packing not in {"", "identity", *(["gzip"] if gzip else [])}:
        raise Invalid(f"a body is taken as it is, not as {packing[:40]}", reason="BODY_ENCODING", field="body")
    content = bytearray()
    try:
        async with asyncio.timeout(SECONDS):
            async for part in request.stream():
                content += part
                if len(content) > largest:
                    raise Invalid(f"a body may have {largest} bytes", reason="BODY_TOO_LARGE", field="body")
    except TimeoutError as error:
        raise Invalid(f"the body did not come within {SECONDS:.0f} s", reason="BODY_LATE", field="body") from error
    return _unpacked(bytes(content), largest) if packing == "gzip" else bytes(content)


def _unpacked(data: bytes, largest: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(data, largest + 1)
    except zlib.error as error:
        raise Invalid("the body is no gzip", reason="BODY_INVALID", field="body") from error
    if len(plain) > largest:
        raise Invalid(f"a body may unpack to {largest} bytes", reason="BODY_TOO_LARGE", field="body")
    if not unpacker.eof:
        raise Invalid("the body is cut gzip", reason="BODY_INVALID", field="body")
    return plain


def parse(method: Method, body: bytes, *, json: bool) -> Message:
    """The request in a body. Raises Invalid naming the field where that is known."""
    made = method.request()
    if not json:
        try:
            made.MergeFromString(body)
        except DecodeError as error:
            raise _wrong(method, "is not the message in protobuf", "body") from error
        return made
    if not body.lstrip().startswith(b"{"):
        raise _wrong(method, "is not a JSON object", "body")
    try:
        json_format.Parse(body.decode(), made, max_recursion_depth=DEEPEST)
    except UnicodeDecodeError as error:
        raise _wrong(method, "is not UTF-8", "body") from error
    except (json_format.ParseError, ValueError, TypeError, ArithmeticError, RecursionError, AttributeError) as error:
        complaint = str(error)[:300]
        found = _FIELD.search(complaint)
        raise _wrong(
            method, f"does not fit: {complaint}", next(filter(None, found.groups())) if found else "body"
        ) from error
    return made


def to_json(method: Method, answer: bytes) -> str:
    """An answer in JSON, in lowerCamelCase as protobuf's JSON mapping has it."""
    text: str = json_format.MessageToJson(method.response.FromString(answer), indent=None, ensure_ascii=False)
    return text


def _wrong(method: Method, what: str, field: str) -> Invalid:
    name = method.request.DESCRIPTOR.name
    return Invalid(f"the body {what}; {name} is described in /openapi.json", reason="BODY_INVALID", field=field)
