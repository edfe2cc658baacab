"""Fingerprints: repeats of an error are one, different errors are two."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from prunella_agent.fingerprint import FRAMES, Fingerprint, fingerprint, frames

PYTHON = """Traceback (most recent call last):
  File "/srv/relay/a1/server.py", line {line}, in do_POST
    self.deliver(body)
  File "/srv/relay/a1/delivery.py", line 40, in deliver
    raise Refused(order)
{error}: order {order} was refused"""
V8 = """TypeError: Cannot read properties of undefined (reading 'price')
    at total (/app/cart.js:{line}:17)
    at async Promise.all (index 0)
    at new Checkout (https://shop.example.com/assets/checkout.3f2a1b9c.js?v=9:1:200)
    at /app/main.js:3:1"""
FIREFOX = "total@https://shop.example.com/cart.js:{line}:17\n@https://shop.example.com/main.js:3:1"


def made(message: str = "refused", stack: str = "", **changes: str) -> Fingerprint:
    given_ = {"package": "relay", "type": "Refused"} | changes
    return fingerprint(given_["package"], given_["type"], message, stack)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("order 17 is late", "order 4711 is late"),
        ("took 31ms", "took 2900ms"),
        ("job 550e8400-e29b-41d4-a716-446655440000", "job 6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
        ("at 0x7f31a0", "at 0x10"),
        ("commit 3f2a1b9c", "commit 00ffe1d2ab"),
        ("since 2026-11-21T10:00:00Z", "since 2025-01-02 03:04:05.678+02:00"),
        ("connect ECONNREFUSED 10.0.0.1:5432", "connect ECONNREFUSED 192.168.7.9:80"),
        ("no mail to bob@example.com", "no mail to alice.b@shop.example.org"),
        ("key 'colour' is missing", "key 'size' is missing"),
        ('cannot parse "a b"', 'cannot parse ""'),
        ("GET https://api.example.com/orders/1?token=s3cret", "GET https://api.example.com/orders/22?token=other"),
        ("cannot open /var/lib/a/data.db", "cannot open /mnt/b/c/data.db"),
        (r"cannot open C:\one\data.db", r"cannot open D:\two\three\data.db"),
        ("two  words\n", "two words"),
    ],
)
def test_what_changes_from_one_occurrence_to_the_next_is_no_difference(one: str, other: str) -> None:
    assert made(one) == made(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("connection refused", "connection reset"),
        ("GET https://api.example.com/orders", "GET https://api.example.com/refunds"),
        ("cannot open /var/data.db", "cannot open /var/index.db"),
        ("can't read it", "can't write it"),
    ],
)
def test_what_says_something_else_is_another_error(one: str, other: str) -> None:
    assert made(one).digest != made(other).digest


def test_package_and_type_and_stack_tell_errors_apart() -> None:
    told = [made(), made(package="shop"), made(type="Late"), made(stack=PYTHON.format(line=1, error="E", order=1))]
    assert len({one.digest for one in told}) == len(told)


@pytest.mark.parametrize("stack", [PYTHON, V8, FIREFOX], ids=["python", "v8", "firefox"])
def test_line_numbers_are_no_difference(stack: str) -> None:
    first = made(stack=stack.format(line=12, error="Refused", order=17))
    assert first == made(stack=stack.format(line=90, error="Refused", order=18))
    assert [part for part in first.parts if part.startswith("frame")]


def test_the_innermost_frame_comes_first_in_every_language() -> None:
    assert frames(PYTHON)[:2] == (("deliver", "delivery.py"), ("do_POST", "server.py"))
    assert frames(V8.format(line=1))[0] == ("total", "cart.js")
    assert frames(V8.format(line=1))[2] == ("new Checkout", "checkout.<id>.js")
    assert frames(FIREFOX.format(line=1)) == (("total", "cart.js"), ("anonymous", "main.js"))


def test_of_chained_exceptions_the_last_one_counts() -> None:
    chained = f"{V8}\n{PYTHON}\n\nDuring handling of the above exception, another exception occurred:\n\n"
    assert frames(chained + 'File "/x/y.py", line 1, in z') == (("z", "y.py"),)


def test_the_depth_of_a_recursion_is_no_difference() -> None:
    frame = '  File "/a/tree.py", line 7, in walk\n'
    assert made(stack=frame * 3) == made(stack=frame * 900) == made(stack=frame * 40_000)


def test_a_stack_that_is_too_long_keeps_both_ends() -> None:
    middle = '  File "/a/middle.py", line 1, in middle\n' * 20_000
    assert frames(middle + '  File "/a/end.py", line 1, in end')[0] == ("end", "end.py")
    assert frames("    at begin (/a/begin.js:1:1)\n" + "    at b (/a/b.js:1:1)\n" * 20_000)[0][0] == "begin"
    assert len(frames("".join(f"at f{chr(97 + n)} (x.js:1:1)\n" for n in range(26)))) == FRAMES


def test_the_parts_say_in_words_what_was_hashed() -> None:
    told = made("order 17 refused by https://u:p@api.example.com/v1?k=1", PYTHON.format(line=1, error="E", order=2))
    assert told.parts == (
        "package relay",
        "type Refused",
        "message order <number> refused by https://api.example.com/v1",
        "frame deliver in delivery.py",
        "frame do_POST in server.py",
    )
    assert len(told.digest) == 64


def test_text_that_is_no_text_is_tolerated() -> None:
    assert made("a\x00b\ud800c").parts[2] == "message a\ufffdb\ufffdc"
    assert made("", package="", type="").parts == ("package -", "type -", "message -")


@given(some.text(), some.text(), some.text(), some.text())
def test_nothing_makes_it_fail(package: str, kind: str, message: str, stack: str) -> None:
    told = fingerprint(package, kind, message, stack)
    assert all("\n" not in part and "\x00" not in part for part in told.parts)
    assert told == fingerprint(package, kind, message, stack)
