r"""Placeholders for what changes from one occurrence of an error to the next.

Rule: what a text says stays, what it says it *of* goes. Quoted texts, URLs' users and queries, paths up to the file
name, addresses, times, UUIDs, JWTs and base64 become placeholders by their form. Of the remaining words:

- An id is told by its shape: letters and digits in turns, or capitals where no word has them (`<id>`). A readable word
  before it stays (`pi_<id>`); what is readable for more than half of its length is a word, whatever digits it holds.
- A run of digits, or a hexadecimal number of at least 8 characters, is `<number>`; 7 are enough when they mix.
- What digits mean stays: versions (`1.2.3`, `v2`), short codes joined to capitals (`E1001`, `TS2345`), numbers after a
  word that says they are a code (`HTTP 404`, `SQLSTATE 23505`, `errno 13`, `exit status 2`), formats (`sha256`). A
  code has at most five digits; longer runs count something. `POS-17` is a thing with a number, and goes.
- The name of a bundle loses the hash of its contents, a function only numbers that a compiler gave.
"""

import re
from itertools import pairwise

_MONTHS = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}"
_DAYS = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]{0,6}"
# One pass from left to right; the first alternative that fits wins, so the order is part of the rule. What repeats
# without a small bound begins where no such character stands before it: each run is looked at once.
_VARIABLE = re.compile(
    rf"""
      (?P<url>\b[A-Za-z][A-Za-z0-9+.-]{{1,15}}://[^\s"'<>`]{{1,500}})
    | (?P<id>(?<![\w-])eyJ[\w-]{{8,2048}}\.[\w-]{{2,2048}}(?:\.[\w-]{{0,2048}})?)
    | (?P<uuid>\b[0-9A-Fa-f]{{8}}-[0-9A-Fa-f]{{4}}-[0-9A-Fa-f]{{4}}-[0-9A-Fa-f]{{4}}-[0-9A-Fa-f]{{12}}\b)
    | (?P<time>\b\d{{4}}[-/.]\d\d[-/.]\d\d(?:[T\ ]\d\d:\d\d(?::\d\d(?:[.,]\d{{1,9}})?)?(?:Z|[+-]\d\d:?\d\d)?)?
              |\b\d\d:\d\d:\d\d(?:[.,]\d{{1,9}})?
              |\b(?:{_DAYS},?\ )?(?:\d{{1,2}}[\ -]{_MONTHS}[\ -]\d{{2,4}}|{_MONTHS}\ {{1,2}}\d{{1,2}})\b
               (?:,?\ \d{{4}}\b)?(?:,?\ \d\d:\d\d(?::\d\d)?(?:\ (?:GMT|UTC|\d{{4}}\b))?)?)
    | (?P<address>\b\d{{1,3}}\.\d{{1,3}}\.\d{{1,3}}\.\d{{1,3}}(?::\d{{1,5}})?\b
                 |(?<![\w:])(?:[0-9A-Fa-f]{{1,4}}:){{3,7}}[0-9A-Fa-f]{{0,4}}(?![\w:])
                 |(?<![\w.+-])[\w.+-]{{1,64}}@[\w-]{{1,63}}(?:\.[\w-]{{1,63}}){{1,4}})
    | (?P<member>(?<=\(reading\ |\(setting\ )'[\w$]{{1,100}}'(?=\)))
    | (?P<text>"[^"\n]{{0,2048}}"|`[^`'\n]{{0,2048}}[`']|(?<!\w)'[^'\n]{{0,2048}}'(?!\w)
              |“[^“”\n]{{0,2048}}”|„[^„“”\n]{{0,2048}}[“”]|‘[^‘’\n]{{0,2048}}’(?!\w)|«[^«»\n]{{0,2048}}»)
    | (?P<path>(?<![\w.])(?:[A-Za-z]:|\.{{1,2}}|~)?(?:[/\\][\w.@+~%-]{{1,100}}){{2,30}})
    | (?P<code>(?<![\w-])(?:HTTP(?:/\d(?:\.\d)?)?|[Ss]tatus(?:\ [Cc]ode)?|[Cc]ode|[Ee]rrno|[Ss]ignal|[Ee]xit|ORA)
               [\ :=\[(\#-]{{1,3}}\d{{1,5}}(?!\w|[.,]\d)
              |(?<![\w-])SQLSTATE[\ :=\[(]{{1,3}}[0-9A-Z]{{5}}(?!\w)
              |(?<![\w-])(?:ERROR|[Ee]rror)\ \d{{3,5}}(?!\w|[.,]\d))
    | (?P<version>(?<![\w.])v?\d{{1,4}}\.\d{{1,4}}\.\d{{1,6}}(?:-(?:alpha|beta|rc|dev|pre)[.\d]{{0,8}})?(?!\w|\.\d)
                 |(?<![\w.])v\d{{1,4}}\.\d{{1,6}}(?!\w|\.\d))
    | (?P<number>\b0[xX][0-9A-Fa-f]{{1,64}}\b|(?<![\w.])\d{{1,40}}(?:[.,]\d{{1,40}}){{1,8}}(?=[A-Za-z%]{{0,4}}(?!\w)))
    | (?P<base64>(?<![\w+/=-])[\w+/-]{{16,2048}}={{0,2}}(?![\w+/=-]))
    | (?P<word>[\w-]{{1,2048}})
    """,
    re.VERBOSE,
)
_KEPT = frozenset({"code", "version"})
_WORD = re.compile(r"[\w-]{1,2048}")
_SEPARATORS = re.compile(r"([_-]+)")
_RUNS = re.compile(r"[a-z]+|[A-Z]+|\d+")
_READABLE = re.compile(r"[A-Z][a-z]{2,}|[a-z]{4,}|\A[a-z]{3}(?=[A-Z])|[A-Z]{5,}")
_VOWEL = re.compile(r"[aeiouAEIOU]")
_VOWELS = frozenset("aeiouAEIOU")
_CLUSTER = re.compile(r"[bcdfghjklmnpqrstvwxz]{5}", re.IGNORECASE)
_VOWELLESS = re.compile(r"[b-df-hj-np-tv-xz0-9]+")  # the alphabet of Kubernetes
_ULID = re.compile(r"[0-7](?:[0-9A-HJKMNP-TV-Z]{25}|[0-9a-hjkmnp-tv-z]{25})")
# Two letters that CamelCase is made with; other single small letters between capitals are no writing.
_PARTICLE = re.compile(r"A[nst]|By|D[bo]|I[dfnopst]|Js|M[ey]|No|O[fknr]|So|To|U[ips]")
_HEX = re.compile(r"(?=[A-Fa-f]*\d)[0-9A-Fa-f]{8,}|(?=[0-9]*[A-Fa-f])(?=[A-Fa-f]*\d[A-Fa-f]*\d)[0-9A-Fa-f]{7}")
_CODE = re.compile(r"[A-Z]{1,8}\d{1,5}[A-Z]?|v\d{1,3}|(?:u?int|float|utf|sha|md|base|ipv|http|tls|oauth|x)\d{1,3}")
_DIGITS = re.compile(r"\d+")
_BUNDLE = re.compile(r"[.-]([A-Za-z0-9_-]{8})(?=(?:\.(?:chunk|bundle|min|esm))?\.(?:m?js|cjs|css)\Z)")
_BUNDLE_WORD = re.compile(r"[a-z]+(?:[_-][a-z]+)*\d{0,3}|(?:[A-Z]?[a-z]{3,}){1,3}\d{0,3}")
_COMPILED = re.compile(
    r"(?<![A-Za-z0-9])(?=[A-Fa-f]{0,64}\d)[0-9A-Fa-f]{8,64}(?![A-Za-z0-9])"
    r"|\b0x[0-9A-Fa-f]{1,64}|(?<=\$\$)[0-9A-Fa-f]{1,8}\b|(?<=func)\d+|(?<=DisplayClass)\d+|(?<=\$Proxy)\d+"
    r"|(?<=MethodAccessor)\d+|(?<=[$_.|])\d+|\d{4,}"
)
# Of nanoid, and of 16, 24, 32 and 64 bytes in base64url.
_ID_LENGTHS = frozenset({21, 22, 32, 43, 86})


def normal(text: str) -> str:
    """The text with placeholders for what changes from one occurrence to the next."""
    return _VARIABLE.sub(_placeholder, text)


def file_name(path: str) -> str:
    """The last part of a path or URL, without query and without the hash that a bundler put into it."""
    name = path.partition("?")[0].partition("#")[0].replace("\\", "/").rstrip("/").rpartition("/")[2]
    hashed = _BUNDLE.search(name)
    if hashed and not _BUNDLE_WORD.fullmatch(hashed[1]):
        return f"{normal(name[: hashed.start(1)])}<id>{name[hashed.end(1) :]}"
    return normal(name) or "-"


def function_name(name: str) -> str:
    """A function without the numbers that a compiler or a template engine gave it; what people count by hand stays."""
    return _COMPILED.sub("<number>", name)


def _placeholder(found: re.Match[str]) -> str:
    kind, text = found.lastgroup or "", found.group()
    if kind == "word":
        return _word(text)
    if kind == "url":
        return _url(text)
    if kind == "path":
        return file_name(text)
    if kind == "member":
        return f"'{_word(text[1:-1])}'"
    if kind == "base64":
        return "<id>" if _base64(text) else _WORD.sub(lambda word: _word(word.group()), text)
    return text if kind in _KEPT else f"<{kind}>"


def _url(url: str) -> str:
    scheme, _, rest = url.partition("://")
    rest = rest.partition("?")[0].partition("#")[0]
    host, slash, path = rest.partition("/")
    # Port and path may hold ids; a host may be an address.
    return f"{scheme}://{normal(host.rpartition('@')[2])}{slash}{'/'.join(normal(part) for part in path.split('/'))}"


def _base64(text: str) -> bool:
    """Whether it is base64 with more than letters and digits in it, not words with `/` or `+` between them."""
    signs = "+=" if "+" in text or "=" in text else "/"
    mixed = any(map(str.isupper, text)) and any(map(str.islower, text))
    if not (signs[0] in text or "=" in text) or not mixed or not text.isascii():
        return False
    if not any(map(str.isdigit, text)) and not (text.endswith("=") and len(text) % 4 == 0):
        return False
    shortest = 3 if signs == "/" else 5
    pieces = re.split(r"[+/=_-]", text)
    return not any(len(piece) >= shortest and _one_case(piece) and _VOWELS.intersection(piece) for piece in pieces)


def _word(token: str) -> str:
    """A word with its ids and numbers replaced; the pieces between `_` and `-` are judged one by one."""
    if token.isalpha() and _one_case(token):
        return token
    pieces = _SEPARATORS.split(token)
    split = (
        len(token) in _ID_LENGTHS and len(pieces) > 1 and not any(_one_case(piece) and _read(piece) for piece in pieces)
    )
    if split and _opaque("".join(pieces[::2]), named=True):
        return "<id>"
    kept: list[tuple[str, str, str]] = []  # separator before it, piece, what stands for it
    for before, piece in zip(["", *pieces[1::2]], pieces[::2], strict=True):
        if _HEX.fullmatch(piece):
            kept.append((before, piece, "<number>"))
        elif _opaque(piece, named=bool(kept)):
            while kept and not (len(kept[-1][1]) > 1 and _one_case(kept[-1][1])):
                before = kept.pop()[0]  # a part of the same id
            kept.append((before, piece, "<id>"))
        elif not (kept and kept[-1][2] == "<id>") or (_one_case(piece) and _read(piece)):
            kept.append((before, piece, piece if _CODE.fullmatch(piece) else _DIGITS.sub("<number>", piece)))
    return "".join(before + shown for before, _, shown in kept)


def _one_case(piece: str) -> bool:
    return not piece or (piece.isalpha() and (piece.islower() or piece.isupper() or piece.istitle()))


def _opaque(piece: str, *, named: bool) -> bool:
    """Whether a piece is no writing; `named`: a word stands before it, as in `pi_3Mtw…`, and less is proof."""
    length = len(piece)
    if length < 5 or not piece.isascii() or piece.isdigit():
        return False
    if named and length >= 8 and _VOWELLESS.fullmatch(piece):
        return True
    if _one_case(piece):
        return False
    runs: list[str] = _RUNS.findall(piece)
    turns = sum(one[0].isdigit() != other[0].isdigit() for one, other in pairwise(runs))
    if length < 8:
        return turns >= 4
    if _ULID.fullmatch(piece) or (turns >= 6 and length >= 14):
        return True
    prefixed = named and length >= 14
    if _read(piece) > length * (0.7 if prefixed else 0.5) or (not turns and length < (10 if named else 12)):
        return False
    single = sum(
        len(run) == 1 and run.islower() and not _PARTICLE.fullmatch(before[-1] + run)
        for before, run in pairwise(runs[:-1])
    )
    return turns + 2 * single >= (2 if prefixed or length >= 20 else 3)


def _read(piece: str) -> int:
    """How many letters of it are in words that can be spoken."""
    words = _READABLE.findall(piece)
    return sum(len(word) for word in words if 5 * len(_VOWEL.findall(word)) >= len(word) and not _CLUSTER.search(word))
