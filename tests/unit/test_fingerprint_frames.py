"""Stacks of eight languages: what one bug prints twice is one, two bugs are two, and the innermost frame comes first.

Each row is one language's form: a stack, the same bug again (other lines, paths, ids, depth of what is outside), and
another bug that is told apart by its frames alone, since type and message are the same throughout.
"""

import pytest

from prunella_agent.fingerprint import fingerprint, frames

PYTHON = """Traceback (most recent call last):
  File "/srv/relay/a1/server.py", line 12, in do_POST
    self.deliver(body)
  File "/srv/relay/a1/delivery.py", line 40, in {0}
    raise Refused(order)
relay.Refused: order 17 was refused"""
GROUP = """  + Exception Group Traceback (most recent call last):
  |   File "/srv/relay/main.py", line 3, in main
  | ExceptionGroup: two (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/srv/relay/job.py", line 9, in {0}
    | ValueError: 1"""
CHAINED = """Traceback (most recent call last):
  File "/srv/db.py", line 4, in query
KeyError: 'x'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/srv/cart.py", line 8, in {0}
RuntimeError: no"""
V8 = """TypeError: x is not a function
    at {0} (/app/src/cart.ts:12:17)
    at async Promise.all (index 0)
    at new Checkout (/app/src/checkout.ts:40:9)
    at /app/src/main.ts:3:1"""
V8_ASYNC = """Error: refused
    at async {0} (file:///srv/app/dist/pay.js:9:11)
    at async Object.<anonymous> (file:///srv/app/dist/main.js:3:3)
    at process.processTicksAndRejections (node:internal/process/task_queues:95:5)"""
FIREFOX = """{0}@https://shop.example.com/assets/cart.js:12:17
async*checkout@https://shop.example.com/assets/checkout.js:3:9
@https://shop.example.com/assets/main.js:1:1"""
SAFARI = """{0}@https://shop.example.com/cart.js:12:17
[native code]
global code@https://shop.example.com/main.js:3:5"""
PHP = """PHP Fatal error:  Uncaught RuntimeException: refused in /w/src/Cart.php:88
Stack trace:
#0 /w/src/Checkout.php(123): App\\Cart->{0}('pi_3MtwBwLkdIwHu7ix28a3tqPA', Object(App\\Order))
#1 [internal function]: App\\Checkout->run(17)
#2 /w/public/index.php(9): App\\{{closure}}()
#3 {{main}}
  thrown in /w/src/Cart.php on line 88"""
PHP_CHAIN = """PDOException: gone in /w/Db.php:7
Stack trace:
#0 /w/Db.php(7): PDO->{0}('SELECT 1')
#1 /w/Repo.php(30): Db->query('SELECT 1')
#2 {{main}}

Next App\\Unavailable: later in /w/Repo.php:33
Stack trace:
#0 /w/Shop.php(4): Repo->find(12)
#1 {{main}}"""
PHP_FATAL = "PHP Fatal error:  Allowed memory size exhausted in /w/src/{0}.php on line 88"
PHP_CLOSURE = """#0 /w/src/Bus.php(12): {{closure:/w/src/{0}.php:12}}(Array)
#1 /w/src/Bus.php(40): class@anonymous\x00/w/src/Bus.php:12$0->{0}()"""
RUBY = """app/models/cart.rb:12:in `{0}': undefined method `price' for nil:NilClass (NoMethodError)
\tfrom app/models/cart.rb:40:in `block (2 levels) in sum'
\tfrom /gems/activesupport-7.1.0/lib/array.rb:5:in `each'
\tfrom bin/shop:3:in `<main>'"""
RUBY_34 = """app/models/cart.rb:12:in 'Cart#{0}': undefined method 'price' for nil (NoMethodError)
\tfrom app/models/cart.rb:40:in 'block (2 levels) in Shop::Cart.sum'
\tfrom bin/shop:3:in '<main>'"""
RUBY_TERMINAL = """Traceback (most recent call last):
\t2: from bin/shop:3:in `<main>'
\t1: from app/cart.rb:40:in `sum'
app/cart.rb:12:in `{0}': refused (RuntimeError)"""
GO = """panic: runtime error: invalid memory address or nil pointer dereference
[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x47b2a1]

goroutine 1 [running]:
github.com/acme/shop/cart.(*Cart).{0}(0xc000010000, {{0x4a5b6c, 0x5}})
\t/home/ci/shop/cart/cart.go:12 +0x1d
main.main.func1()
\t/home/ci/shop/main.go:9 +0x85
created by main.main in goroutine 1
\t/home/ci/shop/main.go:30 +0x2b

goroutine 7 [chan receive]:
net/http.(*Server).Serve(0xc0001)
\t/usr/local/go/src/net/http/server.go:3056 +0x364"""
GO_RECOVERED = """goroutine 51 [running]:
runtime/debug.Stack()
\t/usr/local/go/src/runtime/debug/stack.go:24 +0x65
main.handler.func1()
\t/app/main.go:20 +0x5b
panic({{0x64a2c0, 0x70d1a0}})
\t/usr/local/go/src/runtime/panic.go:884 +0x213
main.{0}(...)
\t/app/order.go:33
main.handler()
\t/app/main.go:25 +0x9c"""
GO_ERRORS = """refused
main.{0}
\t/app/order.go:33
main.main
\t/app/main.go:25
runtime.main
\t/usr/local/go/src/runtime/proc.go:250"""
JAVA = """java.lang.IllegalStateException: refused
\tat com.acme.shop.Web.handle(Web.java:90)
\tat java.base/java.lang.Thread.run(Thread.java:833)
Caused by: java.sql.SQLException: gone
\tat com.acme.shop.Db.{0}(Db.java:12)
\tat com.acme.shop.Cart$$Lambda$14/0x0000000800066840.get(Unknown Source)
\tat com.acme.shop.Cart$$SpringCGLIB$$0.total(<generated>)
\tSuppressed: java.io.IOException: close
\t\tat com.acme.shop.Db.close(Db.java:77)
\t... 12 more"""
KOTLIN = """kotlin.KotlinNullPointerException
\tat com.acme.shop.CartKt${0}$1.invokeSuspend(Cart.kt:12)
\tat kotlin.coroutines.jvm.internal.BaseContinuationImpl.resumeWith(ContinuationImpl.kt:33)
\tat kotlinx.coroutines.DispatchedTask.run(DispatchedTask.kt:106) ~[app.jar:1.2.3]"""
JAVA_ROOT_FIRST = """java.sql.SQLException: gone
\tat com.acme.shop.Db.{0}(Db.java:12)
Wrapped by: java.lang.IllegalStateException: refused
\tat com.acme.shop.Web.handle(Web.java:90)"""
DOTNET = r"""System.InvalidOperationException: refused
 ---> System.TimeoutException: gone
   at Acme.Shop.Db.{0}(String sql, Int32 retries) in C:\src\Shop\Db.cs:line 12
   at Acme.Shop.Cart.<TotalAsync>d__5.MoveNext() in C:\src\Shop\Cart.cs:line 40
   --- End of inner exception stack trace ---
   at Acme.Shop.Web.Handle(Context context) in C:\src\Shop\Web.cs:line 9"""
DOTNET_BARE = """   at System.Linq.Enumerable.Sum[TSource](IEnumerable`1 source, Func`2 selector)
   at Acme.Shop.Cart.<>c__DisplayClass3_0.<{0}>b__0(Order o)
--- End of stack trace from previous location ---
   at Acme.Shop.Web.Handle()"""
MONO = """  at Acme.Cart.{0} (System.String id) [0x00012] in <3f2a1b9c4d5e6f708192a3b4c5d6e7f8>:0
  at Acme.Web.Handle () [0x00001] in /src/Web.cs:12"""
RUST = """thread 'main' panicked at src/cart.rs:12:5:
stack backtrace:
   0: rust_begin_unwind
             at /rustc/3f2a1b9c/library/std/src/panicking.rs:645:5
   1: core::panicking::panic_fmt
             at /rustc/3f2a1b9c/library/core/src/panicking.rs:72:14
   2: shop::cart::{0}::h3f2a1b9c4d5e6f70
             at ./src/cart.rs:12:5
   3: <shop::web::Page as core::ops::Drop>::drop
             at ./src/web.rs:3:9
   4: core::ops::function::FnOnce::call_once
             at /rustc/3f2a1b9c/library/core/src/ops/function.rs:250:5"""
RUST_BARE = """   2:     0x55d0c0a1b2c3 - shop::cart::{0}::{{{{closure}}}}
   3:     0x55d0c0a1b2ff - shop::main"""
RUST_THROWN = "thread 'tokio-runtime-worker' panicked at src/{0}.rs:12:5:\nindex out of bounds"
RUST_OLD = "thread 'main' panicked at 'refused', src/{0}.rs:12:5"

# What changes when the same bug is met again, by text of the stacks above.
AGAIN = (
    (":12", ":977"), ("(123)", "(9)"), ("line 12", "line 13"), ("line 40", "line 4"), ("line 88", "line 91"),
    ("/srv/", "/opt/b2/"), ("/home/ci", "/root/build"), ("/app/", "/usr/src/app/"), ("/w/", "/var/www/html/"),
    ("C:\\src", "D:\\a\\1\\s"), ("/rustc/3f2a1b9c", "/rustc/00ffe1d2"), ("h3f2a1b9c4d5e6f70", "h0011223344556677"),
    ("0xc000010000", "0xc0000b4000"), ("pi_3MtwBwLkdIwHu7ix28a3tqPA", "pi_1JqX0f2eZvKYlo2C9nB7sYcD"),
    ("Lambda$14", "Lambda$201"), (":88", ":91"),
    ("0000000800066840", "00007f31a00b2000"), ("d__5", "d__8"), ("Class3_0", "Class11_0"),
    ("55d0c0a1b2c3", "7ffd00112233"),
    ("<3f2a1b9c4d5e6f708192a3b4c5d6e7f8>", "<a1b2c3d4e5f60718293a4b5c6d7e8f90>"), ("goroutine 1 [", "goroutine 88 ["),
)  # fmt: skip
STACKS = {
    "python": (PYTHON, ("{0}", "delivery.py")),
    "python group": (GROUP, ("{0}", "job.py")),
    "python chain": (CHAINED, ("{0}", "cart.py")),
    "v8": (V8, ("{0}", "cart.ts")),
    "v8 async": (V8_ASYNC, ("{0}", "pay.js")),
    "firefox": (FIREFOX, ("{0}", "cart.js")),
    "safari": (SAFARI, ("{0}", "cart.js")),
    "php": (PHP, ("App\\Cart->{0}", "Checkout.php")),
    "php chain": (PHP_CHAIN, ("PDO->{0}", "Db.php")),
    "php fatal": (PHP_FATAL, ("thrown", "{0}.php")),
    "php closure": (PHP_CLOSURE, ("{{closure}}", "Bus.php")),
    "ruby": (RUBY, ("{0}", "cart.rb")),
    "ruby 3.4": (RUBY_34, ("{0}", "cart.rb")),
    "ruby on a terminal": (RUBY_TERMINAL, ("{0}", "cart.rb")),
    "go": (GO, ("cart.(*Cart).{0}", "cart.go")),
    "go recovered": (GO_RECOVERED, ("main.{0}", "order.go")),
    "go errors": (GO_ERRORS, ("main.{0}", "order.go")),
    "java": (JAVA, ("com.acme.shop.Db.{0}", "Db.java")),
    "java root first": (JAVA_ROOT_FIRST, ("com.acme.shop.Db.{0}", "Db.java")),
    "kotlin": (KOTLIN, ("com.acme.shop.CartKt${0}$<number>.invokeSuspend", "Cart.kt")),
    "dotnet": (DOTNET, ("Acme.Shop.Db.{0}", "Db.cs")),
    "dotnet bare": (DOTNET_BARE, ("System.Linq.Enumerable.Sum[TSource]", "-")),
    "mono": (MONO, ("Acme.Cart.{0}", "<<number>>")),
    "rust": (RUST, ("shop::cart::{0}", "cart.rs")),
    "rust bare": (RUST_BARE, ("shop::cart::{0}::{{{{closure}}}}", "-")),
    "rust thrown": (RUST_THROWN, ("thrown", "{0}.rs")),
    "rust old": (RUST_OLD, ("thrown", "{0}.rs")),
}
each = pytest.mark.parametrize(("stack", "first"), STACKS.values(), ids=STACKS)


def digest(stack: str) -> str:
    return fingerprint("shop", "Error", "refused", stack).digest


@each
def test_the_innermost_frame_comes_first(stack: str, first: tuple[str, str]) -> None:
    assert frames(stack.format("total"))[0] == (first[0].format("total"), first[1].format("total"))


@each
def test_the_same_bug_elsewhere_and_later_is_the_same(stack: str, first: tuple[str, str]) -> None:
    once = again = stack.format("total")
    for old, new in AGAIN:
        again = again.replace(old, new)
    assert again != once
    assert frames(again) == frames(once)
    assert digest(again) == digest(once)


@each
def test_another_function_is_another_bug(stack: str, first: tuple[str, str]) -> None:
    assert len({digest(stack.format(name)) for name in ("total", "refund", "cancelAll")}) == 3


def test_of_causes_the_innermost_alone_counts() -> None:
    assert [function for function, _ in frames(JAVA.format("query"))] == [
        "com.acme.shop.Db.query",
        "com.acme.shop.Cart$$Lambda$<number>.get",
        "com.acme.shop.Cart$$SpringCGLIB$$<number>.total",
    ]
    assert frames(JAVA_ROOT_FIRST.format("query")) == (("com.acme.shop.Db.query", "Db.java"),)
    assert frames(DOTNET.format("Query")) == (("Acme.Shop.Db.Query", "Db.cs"), ("Acme.Shop.Cart.TotalAsync", "Cart.cs"))
    assert [function for function, _ in frames(PHP_CHAIN.format("query"))] == ["PDO->query", "Db->query"]


def test_neither_libraries_nor_handlers_of_a_panic_are_its_frames() -> None:
    assert frames(GO_RECOVERED.format("pay")) == (("main.pay", "order.go"), ("main.handler", "main.go"))
    assert frames(GO.format("Pay")) == (
        ("cart.(*Cart).Pay", "cart.go"), ("main.main.func<number>", "main.go"), ("main.main", "main.go"),
    )  # fmt: skip
    assert frames(RUST.format("pay")) == (
        ("shop::cart::pay", "cart.rs"), ("<shop::web::Page as core::ops::Drop>::drop", "web.rs"),
    )  # fmt: skip


def test_a_newer_ruby_prints_the_same_bug() -> None:
    assert frames(RUBY.format("total"))[:2] == frames(RUBY_34.format("total"))[:2]
    assert frames(RUBY_TERMINAL.format("total")) == (("total", "cart.rb"), ("sum", "cart.rb"), ("<main>", "shop"))


def test_two_bugs_of_php_without_a_trace_are_two() -> None:
    bare = (
        "PHP Fatal error:  Uncaught E: x in /w/{0}.php:3\nStack trace:\n#0 {{main}}\n  thrown in /w/{0}.php on line 3"
    )
    assert frames(bare.format("cart")) == (("thrown", "cart.php"),)
    assert digest(bare.format("cart")) != digest(bare.format("order"))


BUNDLE = """TypeError: Cannot read properties of undefined (reading 'price')
    at {0} (https://shop.example.com/assets/main.{1}.js:1:23456)
    at Array.map (<anonymous>)
    at {0}.render (https://shop.example.com/assets/vendor-{2}.js:2:99)"""


def test_a_new_build_of_a_bundle_is_no_other_bug() -> None:
    built = [BUNDLE.format(*names) for names in (("t", "4f3a9c1b", "BX3k9_dQ"), ("Xr", "00112233", "DkUoPqzX"))]
    assert frames(built[0])[::2] == (("<minified>", "main.<id>.js"), ("<minified>.render", "vendor-<id>.js"))
    assert digest(built[0]) == digest(built[1]) != digest(BUNDLE.format("openCart", "4f3a9c1b", "BX3k9_dQ"))
    message = "Cannot read properties of undefined (reading '{}')"
    one, other = (fingerprint("shop", "TypeError", message.format(name), built[0]) for name in ("price", "name"))
    assert one.digest != other.digest, "when names are gone the property tells bugs apart"


def test_a_place_in_evaluated_code_has_no_line() -> None:
    inner = "    at eval (eval at run (/app/a.js:{0}:1), <anonymous>:{0}:7)\n    at <anonymous>\n    at run (native)"
    assert frames(inner.format(1)) == frames(inner.format(99)) != ()


def test_the_language_that_leaves_less_to_chance_is_believed() -> None:
    child = f"Error: Command failed: python job.py\n{PYTHON.format('deliver')}\n\n{V8_ASYNC.format('spawn')}"
    assert frames(child)[0] == ("deliver", "delivery.py")


@pytest.mark.parametrize(
    "prose",
    ["at least one of them", "at noon: call bob@example.com", "#1: wash hands", "main.go:12: refused", "1: one\n2: two",
     "see it in 'the book'", "Next time", "Caused by: rain", "goroutine leak", "12:30:in the morning",
     "#0 0x00 in f (x) at a.c:1"],
)  # fmt: skip
def test_prose_is_no_stack(prose: str) -> None:
    assert frames(prose) == ()
