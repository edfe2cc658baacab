"""Settings of notifications in a file: JSON or TOML with the field names of the protos.

Rule: what is wrong is said with its place, before anything is sent. Severities may be written as words people use; a
value `${NAME}` is taken from the environment.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.plane_client import USAGE_ERROR, fail

if TYPE_CHECKING:
    from prunella.v1.notification_pb2 import NotificationSettings

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
LARGEST = 1 << 20


def load(file: Path) -> NotificationSettings:
    """The settings in a file. Ends the command when it cannot be read."""
    from google.protobuf.json_format import ParseDict, ParseError

    from prunella.v1.notification_pb2 import NotificationSettings

    values = _filled(_read(file))
    if not isinstance(values, dict):
        fail(f"{file} must hold one document with channels and routes", USAGE_ERROR)
    for route in values.get("routes") or ():
        if isinstance(route, dict) and str(route.get("min_severity", "")).islower():
            route["min_severity"] = f"SEVERITY_{route['min_severity'].upper()}"
    try:
        return ParseDict(values, NotificationSettings())
    except ParseError as error:
        fail(f"{file} does not fit: {error}", USAGE_ERROR)


def _read(file: Path) -> Any:
    import json
    import tomllib

    try:
        text = sys.stdin.read(LARGEST) if str(file) == "-" else file.read_text()
        return tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{file} cannot be read: {error}", USAGE_ERROR)
    except ValueError as error:
        fail(f"{file} is no {'TOML' if file.suffix == '.toml' else 'JSON'}: {error}", USAGE_ERROR)


def _filled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _filled(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each) for each in value]
    if isinstance(value, str) and (found := VARIABLE.fullmatch(value)):
        name = found.group(1)
        if name not in os.environ:
            fail(f"${{{name}}} is not in the environment; set it, or write the value itself", USAGE_ERROR)
        return os.environ[name]
    return value
