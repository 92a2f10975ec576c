"""Strict JSON: each refusal in its words, and `Record` with its paths."""

import time
from collections.abc import Callable

import pytest

from releasekit.errors import FormatError
from releasekit.strictjson import Record, dumps, loads


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"{}", {}),
        (
            b' \r\n\t{"a" : [1, -2.5e3, true, false, null, "x"]} \n',
            {"a": [1, -2500.0, True, False, None, "x"]},
        ),
        (b'"\\ud83d\\ude00 \\u00e9"', "😀 é"),
        ('"é😀"'.encode(), "é😀"),
        (b'"\\\\ud800"', "\\ud800"),
        (b'["\\ud83d\\ude00", "\\u0000"]', ["😀", "\0"]),
        (b"18446744073709551615", 2**64 - 1),
        (b"-99999999999999999999", -(10**20) + 1),
        (b"[-0.0, -0e1, 1e-400]", [0.0, 0.0, 0.0]),
        (b'{"a": {"a": 1}, "A": 2}', {"a": {"a": 1}, "A": 2}),
        (b"[" * 64 + b"]" * 64, None),
        (b'{"a":' * 64 + b"1" + b"}" * 64, None),
        (b'["[", ' + b"[" * 63 + b"]" * 64, None),
        (b'[18446744073709551615, 0, "-0", "999999999999999999999"]', None),
        (b'["' + b"[" * 1000 + b'\\"{{' + b'", []]', ["[" * 1000 + '"{{', []]),
        (b"[" + b"[]," * 1000 + b"[]]", [[]] * 1001),
    ],
)
def test_loads_accepts(data: bytes, value: object) -> None:
    parsed = loads(data, "x.json")
    assert value is None or parsed == value


def test_the_document_s_order_is_kept() -> None:
    parsed = loads(b'{"b": 1, "a": 2}', "x.json")
    assert isinstance(parsed, dict)
    assert list(parsed) == ["b", "a"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not valid JSON: Expecting value at line 1, column 1 (byte 0)"),
        (b"[1] x", "not valid JSON: Extra data at line 1, column 5 (byte 4)"),
        (b"{}\0", "not valid JSON: Extra data at line 1, column 3 (byte 2)"),
        (b"{}{}", "not valid JSON: Extra data at line 1, column 3 (byte 2)"),
        (
            '{"é":\n  "é" "'.encode(),
            "not valid JSON: Expecting ',' delimiter at line 2, column 7 (byte 14)",
        ),
        (
            b'["a\nb"]',
            "not valid JSON: Invalid control character at line 1, column 4 (byte 3)",
        ),
        (
            b'["a',
            "not valid JSON: Unterminated string starting at line 1, column 2 (byte 1)",
        ),
        (b"[01]", "not valid JSON: Expecting ',' delimiter at line 1, column 3 (byte 2)"),
        (b"[.5]", "not valid JSON: Expecting value at line 1, column 2 (byte 1)"),
        (b"[+1]", "not valid JSON: Expecting value at line 1, column 2 (byte 1)"),
        (b"['a']", "not valid JSON: Expecting value at line 1, column 2 (byte 1)"),
        (b"[1] // x", "not valid JSON: Extra data at line 1, column 5 (byte 4)"),
        (
            "[\u0661]".encode(),
            "not valid JSON: Expecting value at line 1, column 2 (byte 1)",
        ),
        (
            "\u00a0[]".encode(),
            "not valid JSON: Expecting value at line 1, column 1 (byte 0)",
        ),
        (b'["\xff"]', "not UTF-8 at byte 2"),
        (b'["\xed\xa0\x80"]', "not UTF-8 at byte 2"),
        (b'["\xc0\xaf"]', "not UTF-8 at byte 2"),
        (b"\xef\xbb\xbf{}", "begins with a byte order mark; expected none"),
        ("{}".encode("utf-16"), "not UTF-8 at byte 0"),
        (b'{"b": 1, "a": 2, "a": 3}', 'key "a" appears twice'),
        (b'[{"x": {"a": 1, "\\u0061": 1}}]', 'key "a" appears twice'),
        (b"[NaN]", "expected finite numbers, found NaN"),
        (b"[Infinity]", "expected finite numbers, found Infinity"),
        (b"[-Infinity]", "expected finite numbers, found -Infinity"),
        (b"[1e999]", 'number "1e999" is too large for a float'),
        (b"[-1e999]", 'number "-1e999" is too large for a float'),
        (
            b"1" * 400 + b".0",
            f'number "{"1" * 59}…" is too large for a float',
        ),
        (
            b"[100000000000000000000]",
            "expected integers of at most 20 digits, found 10000000000000000000… of 21",
        ),
        (
            b"1" * 10_000,
            "expected integers of at most 20 digits, found 11111111111111111111… of 10000",
        ),
        (b"[-0]", "expected 0, found -0"),
        (b'["\\ud800"]', r'a string holds "\ud800", half of a surrogate pair'),
        (b'{"\\uDFFF": 1}', r'a string holds "\udfff", half of a surrogate pair'),
        (b'["\\ude00\\ud83d"]', r'a string holds "\ude00", half of a surrogate pair'),
        (b"[" * 65 + b"]" * 65, "nested deeper than 64 levels"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "nested deeper than 64 levels"),
        (b'["\\"", ' + b"[" * 64, "nested deeper than 64 levels"),
        (b"[" + b"[],{}," * 100 + b"[" * 64, "nested deeper than 64 levels"),
        (b"[" * 100_000, "nested deeper than 64 levels"),
    ],
)
def test_loads_refuses(data: bytes, message: str) -> None:
    with pytest.raises(FormatError) as caught:
        loads(data, "x.json")
    assert str(caught.value) == f"x.json: {message}"


@pytest.mark.parametrize(
    "data",
    [
        b'["' + b'\\"[' * 300_000,  # a string that never ends, full of quotes
        b"[" * 1_000_000,
        b"{" + b'"a":1,' * 100_000 + b'"b":2}',
        b"1" * 1_000_000,
        b"[" + b" " * 1_000_000,
    ],
    ids=["unterminated", "deep", "duplicates", "digits", "spaces"],
)
def test_hostile_documents_are_refused_in_linear_time(data: bytes) -> None:
    start = time.process_time()
    with pytest.raises(FormatError):
        loads(data, "x.json")
    assert time.process_time() - start < 5  # seconds; quadratic time takes hours


def test_dumps_is_canonical() -> None:
    value: dict[str, object] = {"b": [1, "é"], "a": {}, "c": None}
    data = dumps(value)
    assert data.decode() == '{\n "b": [\n  1,\n  "é"\n ],\n "a": {},\n "c": null\n}\n'
    assert loads(data, "x.json") == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_dumps_refuses_what_loads_would(value: object) -> None:
    with pytest.raises(ValueError, match=r"not JSON compliant|surrogates not allowed"):
        dumps([value])


DIGEST = "0123456789abcdef" * 4


def record(**fields: object) -> Record:
    return Record({"files": [fields]}, "release.json").records("files")[0]


@pytest.mark.parametrize(
    ("value", "read", "expected"),
    [
        ("", lambda r: r.text("f"), ""),
        ("é", lambda r: r.text("f"), "é"),
        ("x", lambda r: r.optional_text("f"), "x"),
        ("x", lambda r: r.optional_text("g"), None),
        (0, lambda r: r.integer("f"), 0),
        (2**63 - 1, lambda r: r.integer("f"), 2**63 - 1),
        (-3, lambda r: r.integer("f", minimum=-3, maximum=-3), -3),
        (7, lambda r: r.optional_integer("f"), 7),
        (7, lambda r: r.optional_integer("g"), None),
        (True, lambda r: r.boolean("f"), True),
        ("full", lambda r: r.choice("f", ("delta", "full")), "full"),
        (DIGEST, lambda r: r.hex_digest("f"), DIGEST),
        ([], lambda r: r.integers("f"), ()),
        ([2, 0], lambda r: r.integers("f"), (2, 0)),
        (["b", "a"], lambda r: r.texts("f"), ("b", "a")),
        ({"k": 1}, lambda r: r.record("f").integer("k"), 1),
        ({"k": 1}, lambda r: r.optional_record("f").keys(), ("k",)),
        ({"k": 1}, lambda r: r.optional_record("g"), None),
        ([{"k": 1}, {"k": 2}], lambda r: [x.integer("k") for x in r.records("f")], [1, 2]),
        (None, lambda r: (r.has("f"), r.has("g")), (True, False)),
        (1, lambda r: r.keys(), ("f",)),
    ],
)
def test_record_reads(
    value: object, read: Callable[[Record], object], expected: object
) -> None:
    result = read(record(f=value))
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("value", "read", "message"),
    [
        (12, lambda r: r.text("f"), ".f: expected a string, found 12"),
        (None, lambda r: r.text("f"), ".f: expected a string, found null"),
        (None, lambda r: r.optional_text("f"), ".f: expected a string, found null"),
        (1, lambda r: r.text("g"), ': missing field "g"'),
        (
            "12",
            lambda r: r.integer("f"),
            '.f: expected an integer of at least 0, found "12"',
        ),
        (
            True,
            lambda r: r.integer("f"),
            ".f: expected an integer of at least 0, found true",
        ),
        (1.0, lambda r: r.integer("f"), ".f: expected an integer of at least 0, found 1.0"),
        (-1, lambda r: r.integer("f"), ".f: expected an integer of at least 0, found -1"),
        (
            0,
            lambda r: r.integer("f", minimum=1),
            ".f: expected an integer of at least 1, found 0",
        ),
        (
            9,
            lambda r: r.integer("f", maximum=8),
            ".f: expected an integer of at most 8, found 9",
        ),
        (
            2**63,
            lambda r: r.optional_integer("f"),
            ".f: expected an integer of at most 9223372036854775807, "
            "found 9223372036854775808",
        ),
        (1, lambda r: r.boolean("f"), ".f: expected true or false, found 1"),
        (
            "fulll",
            lambda r: r.choice("f", ("delta", "full")),
            '.f: expected one of "delta", "full", found "fulll"',
        ),
        (
            [],
            lambda r: r.choice("f", {"full"}),
            '.f: expected one of "full", found an array of 0',
        ),
        (
            DIGEST.upper(),
            lambda r: r.hex_digest("f"),
            ".f: expected 64 lowercase hexadecimal digits, found "
            '"0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789A…"',
        ),
        (
            DIGEST[:-1] + "\n",
            lambda r: r.hex_digest("f"),
            ".f: expected 64 lowercase hexadecimal digits, found "
            '"0123456789abcdef0123456789abcdef0123456789abcdef0123456789a…"',
        ),
        (
            12,
            lambda r: r.hex_digest("f"),
            ".f: expected 64 lowercase hexadecimal digits, found 12",
        ),
        ({}, lambda r: r.integers("f"), ".f: expected an array, found an object"),
        (
            [2, -1],
            lambda r: r.integers("f"),
            ".f[1]: expected an integer of at least 0, found -1",
        ),
        (
            [False],
            lambda r: r.integers("f"),
            ".f[0]: expected an integer of at least 0, found false",
        ),
        ("ab", lambda r: r.texts("f"), '.f: expected an array, found "ab"'),
        (["a", 1], lambda r: r.texts("f"), ".f[1]: expected a string, found 1"),
        ([], lambda r: r.record("f"), ".f: expected an object, found an array of 0"),
        (None, lambda r: r.optional_record("f"), ".f: expected an object, found null"),
        ([{}, 1], lambda r: r.records("f"), ".f[1]: expected an object, found 1"),
        (
            [{"a": {}}],
            lambda r: r.records("f")[0].record("a").text("b"),
            '.f[0].a: missing field "b"',
        ),
        (
            {"l.0\n": {"x": 1}},
            lambda r: r.record("f").record("l.0\n").text("x"),
            r'.f["l.0\n"].x: expected a string, found 1',
        ),
        (1, lambda r: r.close(), ': unknown field "f"'),
    ],
)
def test_record_refuses(
    value: object, read: Callable[[Record], object], message: str
) -> None:
    with pytest.raises(FormatError) as caught:
        read(record(f=value))
    assert str(caught.value) == f"release.json: files[0]{message}"


def test_record_at_the_root() -> None:
    with pytest.raises(FormatError) as caught:
        Record([1], "release.json")
    assert str(caught.value) == "release.json: expected an object, found an array of 1"
    root = Record({"size": "x", "sise": 1}, "release.json")
    with pytest.raises(FormatError) as caught:
        root.text("name")
    assert str(caught.value) == 'release.json: missing field "name"'
    with pytest.raises(FormatError) as caught:
        root.integer("size")
    assert str(caught.value) == (
        'release.json: size: expected an integer of at least 0, found "x"'
    )
    with pytest.raises(FormatError) as caught:
        root.close()
    assert str(caught.value) == 'release.json: unknown field "sise"'


def test_close_passes_once_every_field_was_asked_for() -> None:
    root = Record({"a": 1, "b": {"c": 1}}, "release.json")
    assert root.has("a")
    assert root.keys() == ("a", "b")
    with pytest.raises(FormatError, match='unknown field "a"'):
        root.close()
    assert root.optional_integer("a") == 1
    with pytest.raises(FormatError, match='unknown field "b"'):
        root.close()
    inner = root.record("b")
    assert root.optional_text("absent") is None
    root.close()
    with pytest.raises(FormatError, match='b: unknown field "c"'):
        inner.close()
