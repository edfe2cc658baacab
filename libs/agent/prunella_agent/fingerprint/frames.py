"""The innermost frames of a stack, as (function, file), whatever language printed it.

Rule: each line is looked at once, by the form in which a runtime prints a frame: Python, JavaScript (V8, Firefox,
Safari), Java and Kotlin, C#, PHP, Ruby (1.9 to 4), Go and Rust. Where one stack shows another's text, the language
whose form leaves less to chance is believed. Which frame is innermost follows the language: Python (and Ruby on a
terminal) prints it last, all others first. Of chained exceptions Python's last counts, which is what was reported;
elsewhere the innermost cause. Of Go's goroutines the first counts, from the panic on; of Rust nothing of its library.
Without a frame, the place where PHP or Rust say that it was thrown is one. A frame that repeats at once counts once,
so that the depth of a recursion is no difference.
"""

import re
from collections import deque

from prunella_agent.fingerprint.placeholders import file_name, function_name
from prunella_agent.text import clean_text

STACK_CHARACTERS = 64 * 1024
LINE_CHARACTERS = 512
NAME_CHARACTERS = 200
FRAMES = 5

Frame = tuple[str, str]

# In the order in which they are believed.
_LANGUAGES = ("python", "java", "dotnet", "php", "ruby on a terminal", "ruby", "go", "rust", "script", "thrown")
_INNERMOST_LAST = frozenset({"python", "ruby on a terminal"})
# Lines between stacks: what they begin with, whose frames they end or void, and which of the two.
_PYTHON_CHAIN = ("During handling of the above exception", "The above exception was the direct cause")
_VOIDS = {"Caused by: ": "java", "[cause]: ": "script"}
_ENDS = {
    "Suppressed: ": "java",
    "Wrapped by: ": "java",
    "--- End of inner exception stack trace ---": "dotnet",
    "Next ": "php",
    "goroutine ": "go",
}
_BETWEEN = (*_PYTHON_CHAIN, *_VOIDS, *_ENDS)
_JAVA_PLACE = re.compile(r"([\w$@+-]{1,200}\.[a-z]{1,8})(?::\d{1,9})?|Native Method|Unknown Source|<generated>")
_DOTNET_NAME = re.compile(r"[\w.<>\[\]`,+$|&*-]{1,400}")
_DOTNET_PLACE = re.compile(r" (?:\[0x[0-9a-f]{1,16}\] )?in (.{1,400}):(?:line )?\d{1,9}")
_DOTNET_STATE = re.compile(r"<(\w{1,200})>d(?:__\d{1,9})?(?:`\d{1,3})?(?:\[[^\]]{0,100}\])?\.MoveNext")
_HIDDEN_CLASS = re.compile(r"/0x[0-9a-f]{1,16}")
_PHP_CLOSURE = re.compile(r"\{closure[^{}]{0,300}\}|@anonymous.{0,300}?(?=->|::)")
_RUBY_CLASS = re.compile(r"(?<![\w:])[\w:]{1,200}[#.](?=[^\s])")
_RUBY_NUMBER = re.compile(r"\d{1,6}: from ")
_GO_PLACE = re.compile(r"(.{1,400}\.(?:go|s)):\d{1,7}(?: \+0x[0-9a-f]{1,16})?")
_GO_RUNTIME = ("runtime.", "debug.Stack", "debug.PrintStack")
_RUST_FRAME = re.compile(r"\d{1,4}: {1,8}(?:0x[0-9a-f]{1,16} - )?(\S.{0,400})")
_RUST_HASH = re.compile(r"::h[0-9a-f]{16}$")
_RUST_LIBRARY = ("std::", "core::", "alloc::", "test::", "<std::", "<core::", "<alloc::")
_RUST_PANIC = ("core::panicking::", "std::panicking::", "rust_begin_unwind")
_RUST_THROWN = re.compile(r"panicked at (?:.{0,300}, )?([^\s,]{1,200}\.rs):\d{1,9}:\d{1,9}")
_PHP_THROWN = re.compile(r" in ([^\s]{1,300}) on line \d{1,9}$")
_MINIFIED = re.compile(r"[A-Za-z_$][\w$]?|(?=\w{0,2}[A-Z0-9_$])[A-Za-z_$][\w$]{2}")


def frames(stack: str) -> tuple[Frame, ...]:
    """The innermost frames as (function, file), innermost first; empty when none is recognised."""
    if len(stack) > STACK_CHARACTERS:
        half = STACK_CHARACTERS // 2
        stack = f"{stack[:half]}\n{stack[-half:]}"
    reader = _Reader()
    for line in clean_text(stack).splitlines():
        line = line[:LINE_CHARACTERS].strip(" \t|")
        if line and line != reader.previous:
            reader.read(line)
            reader.previous = line
    return reader.innermost()


class _Reader:
    """What was found in the lines so far, by language."""

    def __init__(self) -> None:
        self.previous = ""
        self._found: dict[str, deque[Frame]] = {}
        self._ended: set[str] = set()
        self._last: tuple[str, ...] = ()  # as it was printed: a recursion costs nothing
        self._rust = ""  # the function whose place the next line may tell

    def innermost(self) -> tuple[Frame, ...]:
        for language in _LANGUAGES:
            if found := self._found.get(language):
                return tuple(reversed(found)) if language in _INNERMOST_LAST else tuple(found)
        return ()

    def read(self, line: str) -> None:
        rust, self._rust = self._rust, ""
        if line.startswith("at "):
            self._at(line[3:], rust)
        elif line.startswith('File "'):
            self._python(line[6:])
        elif line.startswith(_BETWEEN):
            self._between(line)
        elif line[0] == "#":
            self._php(line)
        elif ":in " in line:
            self._ruby(line)
        elif ".go:" in line or ".s:" in line:
            self._go(line)
        elif line[0].isdecimal():
            self._rust_function(line)
        elif "@" in line:
            function, _, place = line.partition("@")
            self._script(function.rpartition("*")[2], place)
        elif thrown := _PHP_THROWN.search(line) or _RUST_THROWN.search(line):
            self._add("thrown", "thrown", thrown[1])

    def _add(self, language: str, function: str, path: str) -> None:
        if self._complete(language) or self._last == (language, function, path):
            return
        self._last = (language, function, path)
        found = self._found.setdefault(language, deque(maxlen=FRAMES))
        frame = (function_name(function.strip()[:NAME_CHARACTERS]) or "anonymous", file_name(path)[:NAME_CHARACTERS])
        if not found or found[-1] != frame:
            found.append(frame)

    def _complete(self, language: str) -> bool:
        enough = language not in _INNERMOST_LAST and len(self._found.get(language, ())) == FRAMES
        return enough or language in self._ended

    def _void(self, *languages: str) -> None:
        self._last = ()
        for language in languages:
            self._found.pop(language, None)
            self._ended.discard(language)

    def _between(self, line: str) -> None:
        if line.startswith(_PYTHON_CHAIN):
            self._void(*_LANGUAGES)
        for start, language in _VOIDS.items():
            if line.startswith(start):
                self._void(language)
        for start, language in _ENDS.items():
            if line.startswith(start) and language in self._found:
                self._ended.add(language)

    def _python(self, line: str) -> None:
        """`File "/app/shop/cart.py", line 12, in total`."""
        path, _, rest = line.partition('", line ')
        if rest:
            self._add("python", rest.partition(", in ")[2], path)

    def _php(self, line: str) -> None:
        """`#0 /w/cart.php(123): Cart->total()`, `#1 [internal function]: array_map(Object(Closure), Array)`."""
        number, _, rest = line[1:].partition(" ")
        place, separator, call = rest.partition(": ")
        if number.isdecimal() and separator and (place.endswith(")") or place == "[internal function]"):
            named = _PHP_CLOSURE.sub(lambda found: "{closure}" if found[0][0] == "{" else "@anonymous", call)
            self._add("php", named.partition("(")[0], place.rpartition("(")[0] or place)

    def _ruby(self, line: str) -> None:
        """`app/cart.rb:12:in 'Cart#total'`, before 3.4 without the class and with a backtick; on terminals numbered."""
        place, _, rest = line.partition(":in ")
        path, _, number = place.rpartition(":")
        if not number.isdecimal() or rest[:1] not in ("`", "'"):
            return
        numbered = _RUBY_NUMBER.match(path)
        language = "ruby on a terminal" if numbered or "ruby on a terminal" in self._found else "ruby"
        self._add(language, _RUBY_CLASS.sub("", rest[1 : NAME_CHARACTERS + 1].partition("'")[0]), path)

    def _go(self, line: str) -> None:
        """`main.(*Cart).Total(0xc000010000)`, and in the next line `/app/cart.go:12 +0x1d`."""
        place = _GO_PLACE.fullmatch(line)
        name = self.previous.removeprefix("created by ").partition(" in goroutine ")[0]
        name = (name.rpartition("(")[0] if name.endswith(")") else name).rpartition("/")[2]
        if name == "panic" and "go" not in self._ended:
            self._void("go")  # what came before handles the panic
        elif place and name and " " not in name and not name.startswith(_GO_RUNTIME):
            self._add("go", name, place[1])

    def _rust_function(self, line: str) -> None:
        """`3: shop::cart::total::h3f2a1b9c4d5e6f70`, and in the next line `at ./src/cart.rs:12:5`."""
        found = _RUST_FRAME.fullmatch(line)
        if not found or not ("::" in found[1] or found[1].startswith("rust_")):
            return
        self._rust = _RUST_HASH.sub("", found[1])
        if self._rust.startswith(_RUST_PANIC):
            self._void("rust")  # what came before handles the panic
        elif not self._rust.startswith((*_RUST_LIBRARY, "rust_")):
            self._add("rust", self._rust, "-")

    def _at(self, line: str, rust: str) -> None:
        """What follows `at `: a place of Rust, or a frame of Java, C# or V8."""
        if rust:
            found = self._found.get("rust")
            if found and found[-1] == (function_name(rust[:NAME_CHARACTERS]), "-"):
                found[-1] = (found[-1][0], file_name(_without_numbers(line)))
            return
        function, opened, rest = line.partition("(")
        inside, _, after = rest.partition(")")
        if opened and (java := _JAVA_PLACE.fullmatch(inside)) and " " not in function:
            self._add("java", _HIDDEN_CLASS.sub("", function).rpartition("/")[2], java[1] or "-")
        elif opened and (_DOTNET_NAME.fullmatch(function) or after.startswith(" [0x")):
            place = _DOTNET_PLACE.fullmatch(after)
            self._add("dotnet", _DOTNET_STATE.sub(r"\1", function), place[1] if place else "-")
        else:
            self._v8(line)

    def _v8(self, line: str) -> None:
        """`total (/app/cart.js:12:5)`, `async total (…)`, `/app/cart.js:12:5`, `eval (eval at f (/a.js:1:1), …)`."""
        line = line.removeprefix("async ")
        function, opened, place = line.removesuffix(")").partition(" (")
        if not opened:
            function, place = "", line
        elif place.startswith("eval at "):
            place = place.rpartition("(")[2].partition(")")[0]
        if opened or place == "<anonymous>" or _without_numbers(place) != place:
            self._script(function, place, bare=True)

    def _script(self, function: str, place: str, *, bare: bool = False) -> None:
        """A frame of JavaScript. Names that a minifier made are no names: they change with each build."""
        path = _without_numbers(place)
        if self._complete("script") or (path == place and not bare):
            return
        file = file_name(path)
        if ".min." in file or ("<" in file and file.endswith((".js", ".mjs", ".cjs"))):
            names = function.strip().split(".")
            function = ".".join("<minified>" if _MINIFIED.fullmatch(name) else name for name in names)
        self._add("script", function, path)


def _without_numbers(place: str) -> str:
    """The path of `path:line` or `path:line:column`."""
    for _ in range(2):
        path, colon, digits = place.rpartition(":")
        if colon and digits.isdecimal():
            place = path
    return place
