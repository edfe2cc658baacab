"""Ids by their shape: what changes from one occurrence to the next is no difference, what says something is one."""

import base64
import random
import time
from collections.abc import Callable
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as some

from prunella_agent.fingerprint import fingerprint, frames
from prunella_agent.fingerprint.placeholders import file_name, function_name, normal

DIGITS, LOWER, UPPER = "0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
BASE62 = DIGITS + UPPER + LOWER
CROCKFORD, KUBERNETES = "0123456789ABCDEFGHJKMNPQRSTVWXYZ", "bcdfghjklmnpqrstvwxz2456789"
Made = Callable[[random.Random], str]


def letters(alphabet: str, count: int) -> Made:
    return lambda chance: "".join(chance.choices(alphabet, k=count))


def token(chance: random.Random) -> str:
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (
        b'{"alg":"HS256","typ":"JWT"}', b'{"sub":"%d"}' % chance.getrandbits(60), chance.randbytes(32)
    ))  # fmt: skip


# A family of ids, what stands for one, and of 1,000 how many may be missed because they look like writing.
FAMILIES: dict[str, tuple[Made, str, int]] = {
    "stripe": (lambda chance: "pi_" + letters(BASE62, 24)(chance), "pi_<id>", 5),
    "stripe live key": (lambda chance: "sk_live_" + letters(BASE62, 24)(chance), "sk_live_<id>", 5),
    "stripe customer": (lambda chance: "cus_" + letters(BASE62, 14)(chance), "cus_<id>", 50),
    "ulid": (lambda chance: "01" + letters(CROCKFORD, 24)(chance), "<id>", 0),
    "ulid in small letters": (lambda chance: "01" + letters(CROCKFORD.lower(), 24)(chance), "<id>", 0),
    "nanoid": (letters(BASE62 + "_-", 21), "<id>", 40),
    "ksuid": (lambda chance: "2" + letters(BASE62, 26)(chance), "<id>", 15),
    "cuid": (lambda chance: "c" + letters(DIGITS + LOWER, 24)(chance), "<id>", 20),
    "jwt": (token, "<id>", 0),
    "base64 of 24 bytes": (lambda chance: base64.b64encode(chance.randbytes(24)).decode(), "<id>", 20),
    "base64 of 16 bytes": (lambda chance: base64.b64encode(chance.randbytes(16)).decode(), "<id>", 10),
    "base64url of 32 bytes": (lambda chance: base64.urlsafe_b64encode(chance.randbytes(32)).decode()[:-1], "<id>", 15),
    "objectid": (letters("0123456789abcdef", 24), "<number>", 0),
    "sha512": (letters("0123456789abcdef", 128), "<number>", 0),
    "short commit": (letters("0123456789abcdef", 8), "<number>", 2),
    "pod": (lambda c: f"shop-{letters(KUBERNETES, 10)(c)}-{letters(KUBERNETES, 5)(c)}", "shop-<id>", 5),
    "uuid": (lambda chance: str(UUID(int=chance.getrandbits(128), version=4)), "<uuid>", 0),
}


@pytest.mark.parametrize(("make", "shown", "most"), FAMILIES.values(), ids=FAMILIES)
def test_ids_are_told_by_their_shape(make: Made, shown: str, most: int) -> None:
    chance = random.Random(20)  # noqa: S311 - the same ids each time
    missed = [
        one
        for one in (make(chance) for _ in range(1000))
        if normal(f"no such thing: {one}.") != f"no such thing: {shown}."
    ]
    assert len(missed) <= most, missed[:10]


SAFE = [family for family, (_, _, most) in FAMILIES.items() if not most]
TEMPLATES = (
    "no such thing: {}",
    "GET https://api.example.com/v1/orders/{}/lines failed",
    "order={} refused",
    "[{}] gone",
    "({})",
)
STACK = 'File "/srv/{0}/a.py", line {1}, in total\nFile "/srv/{0}/b.py", line {1}, in pay'


@given(some.integers(0, 2**32), some.sampled_from(SAFE), some.sampled_from(TEMPLATES), some.integers(1, 10**6))
def test_neither_ids_nor_lines_change_the_digest(seed: int, family: str, template: str, line: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - an id has to look like chance
    one, other = (FAMILIES[family][0](chance) for _ in range(2))
    first = fingerprint("shop", "Error", template.format(one), STACK.format(one, 1))
    assert first.digest == fingerprint("shop", "Error", template.format(other), STACK.format(other, line)).digest


@given(
    some.text(), some.text(alphabet=some.characters(categories=["Cc", "Cs", "Nd", "Lu", "Ll", "Po", "Ps", "Pe", "Pc"]))
)
def test_nothing_makes_it_fail(text: str, odd: str) -> None:
    for one in (
        text,
        odd,
        f"at {odd}({text})",
        f"#0 {odd}(1): {text}",
        f"{odd}:1:in `{text}'",
        f"1: {odd}::{text}\nat {text}:1",
    ):
        told = fingerprint(one, one, one, one)
        assert told == fingerprint(one, one, one, one)
        assert not any(set(part) & {"\n", "\x00", "\x1b"} for part in told.parts)
        "".join(told.parts).encode()


@pytest.mark.parametrize(
    "text",
    [
        "getUserByIdAndName", "XMLHttpRequest", "parseJSONFromURL", "isAnIdOfNode", "EADDRINUSE",
        "ERR_MODULE_NOT_FOUND", "CreateProcessAsUserW", "eBayItemIdList", "iPhoneXSMax", "OpenSSL.SSL.Error",
        "application/vnd.api+json", "text/html", "read-only file system", "an un-re-established X-Forwarded-For header",
        "Europe/Berlin", "don't do it", "Jan is away", "com.acme.shop.CartTotalCalculatorFactoryBean",
        # What digits mean.
        "E1001", "TS2345", "PGRST116", "ORA-00942", "SQLSTATE[23505]", "SQLSTATE[HY000]", "SQLSTATE: 40P01", "HTTP 404",
        "HTTP404", "status code 502", "status: 429", "errno 13", "[Errno 2]", "exit status 2", "exited with code 137",
        "signal 9", "RFC7231", "relay 1.2.3", "v2", "v1.2", "1.2.3-rc.1", "sha256", "base64", "int64", "x509", "utf8",
        "Cannot read properties of undefined (reading 'price')",
    ],
)  # fmt: skip
def test_words_versions_and_codes_stay(text: str) -> None:
    assert normal(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("took 31ms, then 1.5s, of 1,234,567", "took <number>ms, then <number>s, of <number>"),
        ("POS-17 of ORD-1042, worker17, page17", "POS-<number> of ORD-<number>, worker<number>, page<number>"),
        ("code 482913 and R1234567", "code <number> and R<number>"),
        ("Mon, 30 Nov 2026 10:00:00 GMT, 2026/11/30, Nov  3 10:00:01", "<time>, <time>, <time>"),
        ("key “a” or «b» of `c' and `d`, „e“", "key <text> or <text> of <text> and <text>, <text>"),
        ('got "' + "x " * 400 + '"', "got <text>"),
        ("ListS3ObjectsV2", "ListS<number>ObjectsV<number>"),
        ("(reading 'pi_3MtwBwLkdIwHu7ix28a3tqPA')", "(reading 'pi_<id>')"),
        ("dQw4w9WgXcQ and a1b2c3", "<id> and <id>"),
        ("orders/01ARZ3NDEKTSV4RRFFQ69G5FAV or refunds/17", "orders/<id> or refunds/<number>"),
        ("Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "Bearer <id>"),
        ("\N{ARABIC-INDIC DIGIT THREE} items", "<number> items"),
    ],
)  # fmt: skip
def test_what_stands_for_what(text: str, shown: str) -> None:
    assert normal(text) == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("https://cdn.example.com/main.4f3a9c1b.js?v=9#x", "main.<id>.js"),
        ("assets/index-BX3k9_dQ.js", "index-<id>.js"),
        ("index-DkUoPqzX.mjs", "index-<id>.mjs"),
        ("chunk-ABCDEFGH.js", "chunk-<id>.js"),
        ("2.3f2a1b9c4d5e6f70.chunk.js", "<number>.<number>.chunk.js"),
        ("main.00112233.chunk.js", "main.<id>.chunk.js"),
        ("user-settings.js", "user-settings.js"),
        ("my-add-cart.js", "my-add-cart.js"),
        ("page-ShopCart.js", "page-ShopCart.js"),
        (r"C:\srv\cart.py", "cart.py"),
        ("", "-"),
    ],
)
def test_a_bundle_loses_the_hash_of_its_contents(name: str, shown: str) -> None:
    assert file_name(name) == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("step1", "step1"), ("sha256", "sha256"), ("getX509Cert2Chain", "getX509Cert2Chain"),
        ("main.func1.2", "main.func<number>.<number>"),
        ("lambda$total$0", "lambda$total$<number>"), ("com.sun.proxy.$Proxy47.run", "com.sun.proxy.$Proxy<number>.run"),
        ("Cart$$EnhancerBySpringCGLIB$$3f2a1b9.run", "Cart$$EnhancerBySpringCGLIB$$<number>.run"),
        ("_app_views_show_html_erb___1234567_70123", "_app_views_show_html_erb___<number>_<number>"),
        ("__TwigTemplate_8c5b3f2a1b9c4d5e", "__TwigTemplate_<number>"),
    ],
)  # fmt: skip
def test_a_function_loses_what_a_compiler_counted(name: str, shown: str) -> None:
    assert function_name(name) == shown


HOSTILE = ['"', "'", "`", "a", "/a", "\\a", "1:", "a@", "a.", "a-", "http://", "aaaa:", "f", "0", "@\n", "at (:1:1)\n"]
HOSTILE += ['File "\n', 'File "a", line \n', "at \n", "-" * 40, "\n"]
# Each expression's way to look long: what it begins with, again and again, and what lacks its end.
HOSTILE += [
    "eyJ",
    "eyJa.",
    "“",
    "„“",
    "‘a",
    "«",
    "a1",
    "aB",
    "_",
    "a_",
    "a1_",
    "A/",
    "+",
    "=",
    "a=",
    "1.",
    "1,",
    "v1.",
    "1-",
    "0x",
    "-a",
]
HOSTILE += [
    "Mon, ",
    "1 Jan ",
    "Jan 1 ",
    "SQLSTATE[",
    "HTTP ",
    "status code ",
    "error 1",
    "(reading '",
    "index-aaaaaaaa",
    ".js",
    "0000000",
]
HOSTILE += [
    "\x1b[",
    "\x1b[0;",
    "\r",
    "\x00",
    "\ud800",
    "a-aaaaaaaa.js/",
    "aaaaaaa0_",
    "$$a",
    "func",
    "a::",
    "x@y",
    ":1",
    " in a on line 1",
]
HOSTILE += [
    "#0 a(1): b\n#0 a(2): b\n",
    "#0 a(1): " + "{closure" * 60 + "\n",
    "#0 a(1): " + "@anonymous" * 40 + "\n",
    "#0 a\n#1 a\n",
]
HOSTILE += [
    "a:1:in `b'\na:2:in `b'\n",
    "a:1:in `" + "A:" * 200 + "'\n",
    ":in `",
    "1: from a:1:in `b'\n2: from b:1:in `c'\n",
    "a:in 'b\n",
]
HOSTILE += [
    "f(\n/a.go:1 +0x1\n",
    ".go:" * 100 + "\n",
    "f\n" + "a" * 400 + ".go:x\n",
    "panic(\n/a.go:1\n",
    ".s:\n",
    "goroutine 1\n",
]
HOSTILE += [
    "0: a::b\nat c:1:1\n",
    "0:        a\n1: a::" + "b" * 400 + "\n",
    "0: core::panicking::\n",
    "panicked at ",
    "panicked at a, ",
]
HOSTILE += [
    "at a(\nat a(b\n",
    "at a.b(C.java:1)\nat a.b(C.java:2)\n",
    "at a.b(C d) in e:line 1\nat a.b(C d) in e:line 2\n",
]
HOSTILE += [
    "at " + "a" * 400 + "(\n",
    "at " + "/0x1" * 100 + "(a.b)\n",
    "at a(b) in " + ":" * 300 + "\n",
    "at " + "<a>d" * 99 + "(\n",
]
HOSTILE += [
    "at a (eval at (\nat b (eval at (\n",
    "at " + "a." * 200 + " (b.min.js:1\nat b\n",
    "Caused by: \nat a.b(C.java:1)\n",
]
HOSTILE += [
    'File "a", line 1, in b\nFile "b", line 1, in b\n',
    "During handling of the above exception\nNext \n",
    "| \n|\n",
]


@pytest.mark.parametrize("piece", HOSTILE, ids=range(len(HOSTILE)))
def test_no_text_costs_more_than_a_moment(piece: str) -> None:
    text = piece * (1024 * 1024 // len(piece))
    spent = []
    for _ in range(3):
        began = time.process_time()
        fingerprint(text, text, text, text)
        spent.append(time.process_time() - began)
    assert min(spent) < 0.1
    assert len(frames(text)) <= 5
