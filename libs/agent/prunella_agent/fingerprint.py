"""The fingerprint of an error: what its occurrences share, so that a thousand of them are one report.

Rule: package, type, message and the five innermost frames, each without what changes from one occurrence to the next.
Numbers, hexadecimal ids, UUIDs, timestamps, addresses and quoted texts become placeholders, URLs lose user and query,
paths keep their file name, frames keep function and file but no line. The parts are texts, so that "why are these two
one?" is answered by what was hashed. Time is linear: 2,048 characters of the message and 64 Ki characters of the stack
are read (half from each end, because Python tells the innermost frame last and JavaScript first), and no expression
looks further than a bounded distance. Text that is no text (NUL, lone surrogates) is tolerated. Standard library only.
"""

import hashlib
import re
from dataclasses import dataclass

VERSION = "prunella-fingerprint-1"
MESSAGE_CHARACTERS = 2048
STACK_CHARACTERS = 64 * 1024
LINE_CHARACTERS = 512
NAME_CHARACTERS = 200
FRAMES = 5

# One pass from left to right; the first alternative that fits wins, so the order is part of the rule.
_VARIABLE = re.compile(
    r"""
      (?P<url>\b[A-Za-z][A-Za-z0-9+.-]{1,15}://[^\s"'<>`]{1,500})
    | (?P<uuid>\b[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}\b)
    | (?P<time>\b\d{4}-\d\d-\d\d(?:[T\ ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)?
              |\b\d\d:\d\d:\d\d(?:[.,]\d{1,9})?)
    | (?P<address>\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?::\d{1,5})?\b
                 |(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){3,7}[0-9A-Fa-f]{0,4}(?![\w:])
                 |(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4})
    | (?P<text>"[^"\n]{0,300}"|`[^`\n]{0,300}`|(?<!\w)'[^'\n]{0,300}'(?!\w))
    | (?P<path>(?<![\w.])(?:[A-Za-z]:|\.{1,2}|~)?(?:[/\\][\w.@+~%-]{1,100}){2,30})
    | (?P<hex>\b0[xX][0-9A-Fa-f]{1,64}\b
             |(?<![A-Za-z0-9])(?=[A-Fa-f]{0,64}\d)[0-9A-Fa-f]{8,64}(?![A-Za-z0-9]))
    | (?P<number>\d+)
    """,
    re.VERBOSE,
)
_PYTHON_CHAIN = ("During handling of the above exception", "The above exception was the direct cause")
_CONTROLS = dict.fromkeys((*range(32), *range(127, 160)), " ")


@dataclass(frozen=True)
class Fingerprint:
    """`digest` is SHA-256 in hex over `parts`; the parts say what the occurrences share."""

    digest: str
    parts: tuple[str, ...]


def fingerprint(package: str, type: str, message: str, stack: str) -> Fingerprint:  # noqa: A002 - its name on the wire
    """What an error of `package` shares with its repeats. Never raises, whatever the texts hold."""
    parts = [f"package {plain(package, NAME_CHARACTERS) or '-'}"]
    parts.append(f"type {normal(plain(type, NAME_CHARACTERS)) or '-'}")
    parts.append(f"message {normal(plain(message, MESSAGE_CHARACTERS)) or '-'}")
    parts += [f"frame {function} in {file}" for function, file in frames(stack)]
    hashed = "\n".join((VERSION, *parts))
    return Fingerprint(hashlib.sha256(hashed.encode()).hexdigest(), tuple(parts))


def plain(text: str, most: int) -> str:
    """At most `most` characters of the text that can be stored and shown: no control characters, one line."""
    cut = text[:most].encode("utf-8", "replace").decode()
    return " ".join(cut.translate(_CONTROLS).split())


def normal(text: str) -> str:
    """The text with placeholders for what changes from one occurrence to the next."""
    return _VARIABLE.sub(_placeholder, text)


def frames(stack: str) -> tuple[tuple[str, str], ...]:
    """The innermost frames as (function, file), innermost first; empty when none is recognised.

    Python and JavaScript (V8, Firefox, Safari) are recognised. A frame that repeats at once counts once, so that the
    depth of a recursion is no difference.
    """
    if len(stack) > STACK_CHARACTERS:
        half = STACK_CHARACTERS // 2
        stack = f"{stack[:half]}\n{stack[-half:]}"
    python: list[tuple[str, str]] = []
    script: list[tuple[str, str]] = []
    for line in stack.splitlines():
        line = line[:LINE_CHARACTERS].strip()
        if line.startswith(_PYTHON_CHAIN):
            # What was raised last is what was reported.
            python.clear()
        elif found := _python(line):
            python.append(found)
        elif len(script) < FRAMES and (found := _script(line)) and found not in script[-1:]:
            script.append(found)
    return _innermost(python) or tuple(script)


def _innermost(python: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    unique: list[tuple[str, str]] = []
    for frame in reversed(python):
        if frame not in unique[-1:]:
            unique.append(frame)
        if len(unique) == FRAMES:
            break
    return tuple(unique)


def _python(line: str) -> tuple[str, str] | None:
    """`File "/app/shop/cart.py", line 12, in total`."""
    if not line.startswith('File "'):
        return None
    path, _, rest = line.removeprefix('File "').partition('", line ')
    _, _, function = rest.partition(", in ")
    return (_function(function), _file(path)) if rest else None


def _script(line: str) -> tuple[str, str] | None:
    """`at total (/app/cart.js:12:5)`, `at /app/cart.js:12:5`, or `total@https://shop/cart.js:12:5`."""
    if line.startswith("at "):
        function, opened, place = line.removeprefix("at ").removesuffix(")").rpartition(" (")
        if not opened:
            function, place = "", line.removeprefix("at ").removeprefix("async ")
        function = function.removeprefix("async ")
    else:
        function, at, place = line.partition("@")
        if not at:
            return None
    path = place
    for _ in range(2):
        head, colon, digits = path.rpartition(":")
        if colon and digits.isdecimal():
            path = head
    if path == place and not line.startswith("at "):
        return None
    return _function(function), _file(path)


def _function(function: str) -> str:
    return normal(plain(function, NAME_CHARACTERS)) or "anonymous"


def _file(path: str) -> str:
    name = path.partition("?")[0].partition("#")[0].replace("\\", "/").rstrip("/").rpartition("/")[2]
    return normal(plain(name, NAME_CHARACTERS)) or "-"


def _placeholder(found: re.Match[str]) -> str:
    kind = found.lastgroup or ""
    if kind == "url":
        return _url(found.group())
    if kind == "path":
        return _file(found.group())
    return f"<{kind}>"


def _url(url: str) -> str:
    scheme, _, rest = url.partition("://")
    rest = rest.partition("?")[0].partition("#")[0]
    host, slash, path = rest.partition("/")
    # Port and path may hold ids; a host may be an address.
    return f"{scheme}://{normal(host.rpartition('@')[2])}{slash}{'/'.join(normal(part) for part in path.split('/'))}"
