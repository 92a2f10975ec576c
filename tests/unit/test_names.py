"""Paths and tensor names: what is refused, what is not, and in which words."""

import pytest

from releasekit.errors import FormatError
from releasekit.names import describe, refuse_clashes, safe_path, shown, tensor_name


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "target/tokenizer/config.json",
        ".gitattributes",
        "..a/b..c/...d",
        "a b/c  d",
        "模型/größe-é.json",
        "e\u0301.json",  # decomposed
        "कर\u094d\u200dम.txt",  # with a zero-width joiner, which Hindi needs
        "👩\u200d🚀.png",
        "CONSOLE",
        "com10.txt",
        "COM",
        "xNUL",
        "a.CON",
        "x" * 255,
        "é" * 127,
        "/".join(["x" * 203] * 5) + "/abcd",  # 1024 bytes
        "$HOME/~/*?<>|'\"",
    ],
)
def test_safe_path_accepts(name: str) -> None:
    assert safe_path(name, "x") == name


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", '"" is empty'),
        ("/etc/passwd", '"/etc/passwd" is absolute; expected one relative to the release'),
        ("..", '".." has a ".." segment'),
        ("a/../b", '"a/../b" has a ".." segment'),
        ("./a", '"./a" has a "." segment'),
        ("a//b", '"a//b" has an empty segment'),
        ("a/", '"a/" has an empty segment'),
        ("a\\b", r'"a\\b" holds a backslash, which separates folders on Windows'),
        ("C:a", '"C:a" holds a colon, which names a drive or a stream on Windows'),
        ("a:b", '"a:b" holds a colon, which names a drive or a stream on Windows'),
        ("a\0b", r'"a\u0000b" holds the control character U+0000'),
        ("a\nb", r'"a\nb" holds the control character U+000A'),
        ("a\x1b[2K", r'"a\u001b[2K" holds the control character U+001B'),
        ("a\x7f", r'"a\x7f" holds the control character U+007F'),
        ("a\x85", r'"a\x85" holds the control character U+0085'),
        ("a\u2028", r'"a\u2028" holds the control character U+2028'),
        ("a\u2029", r'"a\u2029" holds the control character U+2029'),
        ("a\u061c", r'"a\u061c" holds the control character U+061C'),
        ("a\u200e", r'"a\u200e" holds the control character U+200E'),
        ("a\u200f", r'"a\u200f" holds the control character U+200F'),
        ("a\u202a", r'"a\u202a" holds the control character U+202A'),
        ("nosj.\u202egnp", r'"nosj.\u202egnp" holds the control character U+202E'),
        ("a\u2066", r'"a\u2066" holds the control character U+2066'),
        ("a\u2069", r'"a\u2069" holds the control character U+2069'),
        ("a\ud800", r'"a\ud800" holds half of a surrogate pair'),
        ("a.", '"a." has a segment that ends in a dot or a space: "a."'),
        ("a /b", '"a /b" has a segment that ends in a dot or a space: "a "'),
        (".../b", '".../b" has a segment that ends in a dot or a space: "..."'),
        ("CON", '"CON" has a segment that is a device on Windows: "CON"'),
        ("a/nul", '"a/nul" has a segment that is a device on Windows: "nul"'),
        ("Aux.h", '"Aux.h" has a segment that is a device on Windows: "Aux.h"'),
        ("prn .x", '"prn .x" has a segment that is a device on Windows: "prn .x"'),
        (
            "COM1.tar.gz",
            '"COM1.tar.gz" has a segment that is a device on Windows: "COM1.tar.gz"',
        ),
        ("lpt9/x", '"lpt9/x" has a segment that is a device on Windows: "lpt9"'),
        ("LPT²", '"LPT²" has a segment that is a device on Windows: "LPT²"'),
        ("conin$", '"conin$" has a segment that is a device on Windows: "conin$"'),
        ("é" * 128, f'"{"é" * 128}" has a segment longer than 255 bytes'),
        (
            "/".join(["x" * 203] * 5) + "/abcde",
            f'"{"x" * 199}…" is longer than 1024 bytes',
        ),
    ],
)
def test_safe_path_refuses(name: str, fault: str) -> None:
    with pytest.raises(FormatError) as caught:
        safe_path(name, "release.json: files[0].path")
    assert str(caught.value) == f"release.json: files[0].path: path {fault}"


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["a", "b"],
        ["a/b", "a/c", "a/b.c", "ab"],
        ["a", "a.b", "a-b/c", "ä"],
        ["dir/x", "Dir/y"],  # one folder or two, but no file is lost
        ["a/b", "b/a"],
    ],
)
def test_refuse_clashes_accepts(names: list[str]) -> None:
    refuse_clashes(names, "x")
    refuse_clashes(reversed(names), "x")


_FOLDED = "where case or Unicode form is not kept apart"


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (["a", "b", "a"], 'path "a" appears twice'),
        (
            ["README.md", "readme.md"],
            f'paths "README.md" and "readme.md" are one file {_FOLDED}',
        ),
        (["é", "e\u0301"], f'paths "é" and "e\u0301" are one file {_FOLDED}'),
        (["E\u0301", "é"], f'paths "E\u0301" and "é" are one file {_FOLDED}'),
        (["Straße", "STRASSE"], f'paths "Straße" and "STRASSE" are one file {_FOLDED}'),
        (["Σ/x", "ς/X"], f'paths "Σ/x" and "ς/X" are one file {_FOLDED}'),
        (["K", "\u212a"], f'paths "K" and "\u212a" are one file {_FOLDED}'),
        (["a", "a/b"], 'path "a" is a file, and also the folder of "a/b"'),
        (["a/b/c/d", "A/B"], 'path "A/B" is a file, and also the folder of "a/b/c/d"'),
        (["é", "E\u0301/b"], 'path "é" is a file, and also the folder of "E\u0301/b"'),
    ],
)
def test_refuse_clashes_refuses(names: list[str], fault: str) -> None:
    with pytest.raises(FormatError) as caught:
        refuse_clashes(iter(names), "SHA256SUMS")
    assert str(caught.value) == f"SHA256SUMS: {fault}"


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.q_proj.weight",
        "dense/kernel:0",
        "重み",
        " ",
        "a..b",
        "...",
        "..a/b",
        "a\nb\u202e",
        "C:",
        "x" * 5000,
        "CON",
    ],
)
def test_tensor_name_accepts(name: str) -> None:
    assert tensor_name(name, "x") == name


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", '"" is empty'),
        ("a\0", r'"a\u0000" holds a NUL character'),
        ("é\udfff", r'"é\udfff" holds half of a surrogate pair'),
        ("..", '".." has a ".." segment'),
        ("../w", '"../w" has a ".." segment'),
        ("a/..", '"a/.." has a ".." segment'),
        ("a\\..\\w", r'"a\\..\\w" has a ".." segment'),
        ("a\\../w", r'"a\\../w" has a ".." segment'),
        ("/w", '"/w" is an absolute path'),
        ("\\w", r'"\\w" is an absolute path'),
        ("C:/w", '"C:/w" is an absolute path'),
        ("c:\\w", r'"c:\\w" is an absolute path'),
    ],
)
def test_tensor_name_refuses(name: str, fault: str) -> None:
    with pytest.raises(FormatError) as caught:
        tensor_name(name, "model.safetensors")
    assert str(caught.value) == f"model.safetensors: tensor name {fault}"


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("plain é 模", '"plain é 模"'),
        ('say "hi"\\', r'"say \"hi\"\\"'),
        ("\n\0\x7f\u2028\u202e\ud800", r'"\n\u0000\x7f\u2028\u202e\ud800"'),
        ("\U000e0041", r'"\U000e0041"'),
        ("x" * 200, f'"{"x" * 200}"'),
        ("x" * 201, f'"{"x" * 199}…"'),
    ],
)
def test_shown(text: str, quoted: str) -> None:
    assert shown(text) == quoted


@pytest.mark.parametrize(
    ("value", "described"),
    [
        (None, "null"),
        (True, "true"),
        (-12, "-12"),
        (0.5, "0.5"),
        ("é", '"é"'),
        ("x" * 61, f'"{"x" * 59}…"'),
        ([1, [2]], "an array of 2"),
        ({"a": 1}, "an object"),
    ],
)
def test_describe(value: object, described: str) -> None:
    assert describe(value) == described
