"""The manifest: a round trip, and each contradiction with the words that refuse it.

Documents are made by hand here, with identities computed as the format describes them.
"""

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from blake3 import blake3

from releasekit.errors import FormatError
from releasekit.manifest_parser import parse
from releasekit.operations import Op
from releasekit.versions import EXPECTED
from tests.builders import safetensors_bytes

Document = dict[str, Any]
Change = Callable[[Document], object]


def d(data: bytes) -> str:
    """The digest of a tensor."""
    return str(blake3(data).hexdigest())


def identity(tensors: list[tuple[str, str, list[int], str]]) -> str:
    lines = [
        json.dumps(line, ensure_ascii=False, separators=(",", ":")) for line in tensors
    ]
    text = "releasekit checkpoint identity v1\n" + "".join(f"{x}\n" for x in sorted(lines))
    return str(blake3(text.encode()).hexdigest())


def document() -> Document:
    """A release with an operation of each kind: two files, one tensor dropped."""
    base = [
        ("delta", "BF16", [2], d(b"b1")),
        ("dropped", "I64", [], d(b"b2")),
        ("grown", "F16", [2, 3], d(b"b3")),
        ("same", "F32", [], d(b"b4")),
        ("wide", "F32", [2], d(b"b5")),
    ]
    target = [
        ("alias", "U8", [3], d(b"t1")),
        ("delta", "BF16", [2], d(b"t2")),
        ("grown", "F16", [4, 3], d(b"t3")),
        ("new", "U8", [3], d(b"t1")),
        ("same", "F32", [], d(b"b4")),
        ("wide", "BF16", [2], d(b"t4")),
    ]
    one = safetensors_bytes(
        {"delta": ("BF16", [2], b"xxxx"), "same": ("F32", [], b"xxxx")}, {"größe": "\n"}
    )
    two = safetensors_bytes(
        {
            "new": ("U8", [3], b"xxx"),
            "alias": ("U8", [3], b"xxx"),
            "grown": ("F16", [4, 3], b"x" * 24),
            "wide": ("BF16", [2], b"xxxx"),
        },
        pad=1,
    )
    return {
        "format": "releasekit-delta/1",
        "name": "tüne",
        "version": "1",
        "made_with": "a test",
        "codec": {"id": "ulp-v1", "params": {"chunk": 1024}},
        "base": {
            "identity": identity(base),
            "tensors": [
                {"name": name, "dtype": dtype, "shape": shape, "digest": digest}
                for name, dtype, shape, digest in base
            ],
            "accepted": [d(b"another"), d(b"base")],
            "release": {
                "name": "früher",
                "version": "0.9",
                "manifest": d(b"its manifest"),
                "hub": "org/früher@v0.9",
            },
        },
        "target": {
            "identity": identity(target),
            "weights": [
                weights("1.safetensors", one),
                weights("zwei/2.safetensors", two),
            ],
            "files": [file("config.json"), file("größe/ä.txt")],
        },
        "tensors": [
            {"name": "delta", "op": "delta", "digest": d(b"t2")},
            {"name": "same", "op": "same"},
            {"name": "new", "op": "new", "digest": d(b"t1")},
            {"name": "alias", "op": "alias", "of": "new"},
            {"name": "grown", "op": "resize", "digest": d(b"t3")},
            {"name": "wide", "op": "delta", "digest": d(b"t4"), "cast": "float-rne-v1"},
        ],
        "shards": [file("delta-00001-of-00001.safetensors")],
    }


def weights(path: str, data: bytes) -> Document:
    header = data[8 : 8 + int.from_bytes(data[:8], "little")].decode()
    return {"path": path, "size": len(data), "sha256": "0" * 64, "header": header}


def file(path: str) -> Document:
    return {"path": path, "size": 5, "sha256": "5" * 64}


def packed(value: Document) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()


def test_a_manifest_is_read() -> None:
    manifest = parse(packed(document()))
    assert manifest.name == "tüne"
    assert list(manifest.target) == ["delta", "same", "new", "alias", "grown", "wide"]
    assert manifest.dropped == ("dropped",)
    assert list(manifest.rebuilt) == [
        "1.safetensors",
        "zwei/2.safetensors",
        "config.json",
        "größe/ä.txt",
    ]
    assert [operation.op for operation in manifest.operations.values()] == [
        Op.DELTA,
        Op.SAME,
        Op.NEW,
        Op.ALIAS,
        Op.RESIZE,
        Op.DELTA,
    ]
    digests = {name: made.digest for name, made in manifest.operations.items()}
    assert digests["same"] == d(b"b4")
    assert digests["alias"] == digests["new"]
    predictors = {name: manifest.predictor(name) for name in manifest.target}
    assert [name for name, spec in predictors.items() if spec is None] == ["new", "alias"]
    wide = predictors["wide"]
    assert wide is not None
    assert wide.describe() == "F32[2]"


def test_pack_inverts_parse_to_the_byte() -> None:
    data = packed(document())
    manifest = parse(data)
    assert manifest.pack() == data
    assert parse(manifest.pack()) == manifest


def test_operations_may_stand_in_any_order() -> None:
    shuffled = document()
    shuffled["tensors"].reverse()  # so the alias comes before its source
    assert parse(packed(shuffled)) == parse(packed(document()))


def put(path: str, value: object) -> Change:
    """A change that sets the field at `path`, e.g. `tensors.0.op`."""
    *folders, last = path.split(".")

    def change(root: Document) -> None:
        place: Any = root
        for key in folders:
            place = place[int(key) if key.isdecimal() else key]
        place[int(last) if last.isdecimal() else last] = value

    return change


def drop(path: str) -> Change:
    *folders, last = path.split(".")

    def change(root: Document) -> None:
        place: Any = root
        for key in folders:
            place = place[int(key) if key.isdecimal() else key]
        del place[int(last) if last.isdecimal() else last]

    return change


def add(path: str, value: object) -> Change:
    def change(root: Document) -> None:
        place: Any = root
        for key in path.split("."):
            place = place[int(key) if key.isdecimal() else key]
        place.append(value)

    return change


def header(index: int, text: str) -> Change:
    def change(root: Document) -> None:
        entry = root["target"]["weights"][index]
        entry["size"] += len(text.encode()) - len(entry["header"].encode())
        entry["header"] = text

    return change


def refusal(*changes: Change) -> str:
    """The words that refuse the document after the changes; all start with its name."""
    changed = deepcopy(document())
    for change in changes:
        change(changed)
    with pytest.raises(FormatError) as caught:
        parse(packed(changed))
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith("release.json")
    return message.removeprefix("release.json").removeprefix(": ")


UPDATE = "a newer releasekit may know it; update with `pip install -U releasekit`"
OPS = '"same", "delta", "resize", "new", "alias"'
ONE, TWO = document()["target"]["weights"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            put("format", "releasekit-delta/2"),
            f'format: expected "releasekit-delta/1", found "releasekit-delta/2": {UPDATE}',
        ),
        (
            put("format", "x\n"),
            rf'format: expected "releasekit-delta/1", found "x\n": {UPDATE}',
        ),
        (
            put("codec.id", "ulp-v2"),
            f'codec.id: expected one of ulp-v1, add-v1, found "ulp-v2": {UPDATE}',
        ),
        (
            put("codec.params.chunk", 1023),
            "codec.params.chunk: expected an integer of at least 1024, found 1023",
        ),
        (
            put("codec.params.chunk", 2**24 + 1),
            "codec.params.chunk: expected an integer of at most 16777216, found 16777217",
        ),
    ],
)
def test_what_only_a_newer_version_knows_is_refused(change: Change, message: str) -> None:
    assert refusal(change) == message


@pytest.mark.parametrize(
    "path",
    [
        "",
        "codec",
        "codec.params",
        "base",
        "base.tensors.4",
        "base.release",
        "target",
        "target.weights.1",
        "target.files.0",
        "tensors.0",
        "tensors.1",
        "tensors.3",
        "shards.0",
    ],
)
def test_unknown_fields_are_refused(path: str) -> None:
    where = "".join(f"[{k}]" if k.isdecimal() else f".{k}" for k in path.split("."))[1:]
    prefix = f"{where}: " if where else ""
    assert refusal(put(f"{path}.x y".lstrip("."), 1)) == f'{prefix}unknown field "x y"'


@pytest.mark.parametrize(
    ("path", "key"),
    [
        *(("", key) for key in document()),
        ("codec", "id"),
        ("codec", "params"),
        ("codec.params", "chunk"),
        ("base", "identity"),
        ("base", "tensors"),
        *(("base.tensors[0]", key) for key in ("name", "dtype", "shape", "digest")),
        *(("base.release", key) for key in ("name", "version", "manifest")),
        *(("target", key) for key in ("identity", "weights", "files")),
        *(("target.weights[1]", key) for key in ("path", "size", "sha256", "header")),
        *(("target.files[0]", key) for key in ("path", "size", "sha256")),
        *(("shards[0]", key) for key in ("path", "size", "sha256")),
        *(("tensors[0]", key) for key in ("name", "op", "digest")),
        ("tensors[3]", "of"),
    ],
)
def test_missing_fields_are_refused(path: str, key: str) -> None:
    place = f"{path}.{key}".replace("[", ".").replace("]", "").lstrip(".")
    prefix = f"{path}: " if path else ""
    assert refusal(drop(place)) == f'{prefix}missing field "{key}"'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("name", 1), "name: expected a string, found 1"),
        (put("base", []), "base: expected an object, found an array of 0"),
        (
            put("base.tensors.1", None),
            "base.tensors[1]: expected an object, found null",
        ),
        (
            put("base.tensors.0.shape", [2, -1]),
            "base.tensors[0].shape[1]: expected an integer of at least 0, found -1",
        ),
        (
            put("base.tensors.0.shape", "2"),
            'base.tensors[0].shape: expected an array, found "2"',
        ),
        (
            put("base.tensors.0.digest", "0" * 63),
            "base.tensors[0].digest: expected 64 lowercase hexadecimal digits, found "
            f'"{"0" * 59}…"',
        ),
        (
            put("base.release.name", "a\nb"),
            "base.release.name: expected a line of 1 to 200 characters, found "
            r'"a\nb"',
        ),
        (
            put("base.release.version", "v1"),
            f'base.release.version: expected {EXPECTED}, found "v1"',
        ),
        (
            put("base.release.manifest", "0"),
            'base.release.manifest: expected 64 lowercase hexadecimal digits, found "0"',
        ),
        (
            put("base.release.hub", ""),
            'base.release.hub: expected a line of 1 to 200 characters, found ""',
        ),
        (
            put("shards.0.sha256", "A" * 64),
            "shards[0].sha256: expected 64 lowercase hexadecimal digits, found "
            f'"{"A" * 59}…"',
        ),
        (
            put("shards.0.size", 1.0),
            "shards[0].size: expected an integer of at least 0, found 1.0",
        ),
        (
            put("shards.0.size", 2**63),
            "shards[0].size: expected an integer of at most 9223372036854775807, found "
            "9223372036854775808",
        ),
        (
            put("target.files.1.size", True),
            "target.files[1].size: expected an integer of at least 0, found true",
        ),
        (
            put("target.weights.0.header", {}),
            "target.weights[0].header: expected a string, found an object",
        ),
        (
            put("tensors.0.op", "xor"),
            f'tensors[0].op: expected one of {OPS}, found "xor"',
        ),
        (
            put("tensors.3.of", ["new"]),
            "tensors[3].of: expected a string, found an array of 1",
        ),
        (
            put("tensors.5.cast", 1),
            "tensors[5].cast: expected a string, found 1",
        ),
    ],
)
def test_wrong_types_are_refused(change: Change, message: str) -> None:
    assert refusal(change) == message


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (put("codec.id", "\x1b[2J\n"), "codec.id"),
        (put("tensors.5.cast", "\x1b[2J\n"), 'tensors: "wide": cast'),
        (put("tensors.5.name", "\x1b[2J\n"), r'tensors: "\u001b[2J\n"'),
        (put("tensors.0.op", "\x1b[2J\n"), "tensors[0].op"),
    ],
)
def test_what_messages_quote_is_safe_to_print(change: Change, field: str) -> None:
    assert refusal(change).startswith(f"{field}: ")


def test_an_unknown_dtype_is_refused() -> None:
    message = refusal(put("base.tensors.0.dtype", "BF8"))
    assert message.startswith('base.tensors[0].dtype: expected one of "BOOL", "F4", ')
    assert message.endswith(', "I64", "U64", found "BF8"')


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "release.json: not valid JSON: Expecting value at line 1, column 1 (byte 0)"),
        (b"[]", "release.json: expected an object, found an array of 0"),
        (b'{"format": 1}', "release.json: format: expected a string, found 1"),
        (b'{"a": 1, "a": 1}', 'release.json: key "a" appears twice'),
    ],
)
def test_other_documents_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse(data)
    assert str(caught.value) == message


def test_a_base_that_is_not_the_one_identified_is_refused() -> None:
    true = document()["base"]["identity"]
    assert refusal(put("base.identity", "0" * 64)) == (
        f"base.identity: expected {true}, the digest of the tensors listed, "
        f"found {'0' * 64}"
    )
    listed = refusal(put("base.tensors.1.digest", "0" * 64))
    assert listed.endswith(f", the digest of the tensors listed, found {true}")


def test_a_target_that_is_not_the_one_identified_is_refused() -> None:
    true = document()["target"]["identity"]
    assert refusal(put("target.identity", "0" * 64)) == (
        f"target.identity: expected {true}, the digest of the tensors listed, "
        f"found {'0' * 64}"
    )
    listed = refusal(put("tensors.0.digest", "0" * 64))
    assert listed.endswith(f", the digest of the tensors listed, found {true}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            put("tensors.1", {"name": "wide", "op": "same"}),
            'tensors: "wide": op same: expected a base of BF16, found F32',
        ),
        (
            put("tensors.2", {"name": "new", "op": "same"}),
            'tensors: "new": op same: expected a tensor of that name in the base, '
            "found none",
        ),
        (
            put("tensors.2.op", "delta"),
            'tensors: "new": op delta: expected a tensor of that name in the base, '
            "found none",
        ),
        (
            put("tensors.2.op", "resize"),
            'tensors: "new": op resize: expected a tensor of that name in the base, '
            "found none",
        ),
        (
            put("tensors.4.op", "delta"),
            'tensors: "grown": op delta: expected a base of F16[4, 3], found F16[2, 3]',
        ),
        (
            put("tensors.0.op", "resize"),
            'tensors: "delta": op resize: expected other rows than BF16[2], found BF16[2]',
        ),
        (
            put("base.tensors.2.shape", [2, 4]),
            'tensors: "grown": op resize: expected a base of F16[4, 3], found F16[2, 4]',
        ),
        (
            put("base.tensors.2.shape", []),
            'tensors: "grown": op resize: expected other rows than F16[4, 3], found F16[]',
        ),
        (
            put("base.tensors.2.shape", [2]),
            'tensors: "grown": op resize: expected a base of F16[4, 3], found F16[2]',
        ),
        (
            put("base.tensors.4.dtype", "I16"),
            'tensors: "wide": op delta: expected a base of BF16, found I16',
        ),
        (
            put("base.tensors.0.dtype", "F16"),
            'tensors: "delta": cast: expected "float-rne-v1", found null',
        ),
        (
            put("tensors.0.cast", "float-rne-v1"),
            'tensors: "delta": cast: expected null, found "float-rne-v1"',
        ),
        (
            put("tensors.2.cast", "float-rne-v1"),
            'tensors: "new": cast: expected null, found "float-rne-v1"',
        ),
        (put("tensors.1.digest", "0" * 64), 'tensors[1]: unknown field "digest"'),
        (put("tensors.0.of", "new"), 'tensors[0]: unknown field "of"'),
        (put("tensors.3.cast", "float-rne-v1"), 'tensors[3]: unknown field "cast"'),
    ],
)
def test_operations_that_do_not_fit_are_refused(change: Change, message: str) -> None:
    assert refusal(change) == message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            put("tensors.3.of", "alias"),
            'tensors: "alias": of: "alias" is no tensor with bytes of its own',
        ),
        (
            put("tensors.3.of", "dropped"),
            'tensors: "alias": of: "dropped" is no tensor with bytes of its own',
        ),
        (
            put("tensors.2", {"name": "new", "op": "alias", "of": "alias"}),
            'tensors: "new": of: "alias" is no tensor with bytes of its own',
        ),
        (
            put("tensors.3.of", "delta"),
            'tensors: "alias": of: expected U8[3], found "delta" of BF16[2]',
        ),
    ],
)
def test_aliases_of_what_has_no_such_bytes_are_refused(
    change: Change, message: str
) -> None:
    assert refusal(change) == message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            add("tensors", {"name": "same", "op": "same"}),
            'tensors: "same": stands twice',
        ),
        (
            add("tensors", {"name": "alias", "op": "new", "digest": d(b"t1")}),
            'tensors: "alias": stands twice',
        ),
        (
            add("tensors", {"name": "dropped", "op": "same"}),
            'tensors: "dropped": is in none of the target\'s files',
        ),
        (drop("tensors.1"), 'tensors: "same" has no operation'),
        (put("tensors", []), 'tensors: "delta" has no operation'),
        (
            add(
                "base.tensors",
                {"name": "same", "dtype": "U8", "shape": [], "digest": "0" * 64},
            ),
            'base.tensors: "same" stands twice',
        ),
        (
            header(1, TWO["header"].replace('"new"', '"same"')),
            'target.weights: tensor "same" stands in two files',
        ),
    ],
)
def test_each_tensor_has_one_operation(change: Change, message: str) -> None:
    assert refusal(change) == message


@pytest.mark.parametrize("place", ["target.weights.0", "target.files.0", "shards.0"])
@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("../x", 'has a ".." segment'),
        ("/etc/passwd", "is absolute; expected one relative to the release"),
        ("", "is empty"),
        ("a//b", "has an empty segment"),
        ("x\x1b[31m", "holds the control character U+001B"),
        ("aux.safetensors", 'has a segment that is a device on Windows: "aux.safetensors"'),
    ],
)
def test_unsafe_paths_are_refused(place: str, path: str, fault: str) -> None:
    shown = json.dumps(path)
    assert refusal(put(f"{place}.path", path)) == f"path {shown} {fault}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            put("target.files.0.path", "1.safetensors"),
            'target: path "1.safetensors" appears twice',
        ),
        (
            put("target.files.0.path", "1.SafeTensors"),
            'target: paths "1.safetensors" and "1.SafeTensors" are one file where case or '
            "Unicode form is not kept apart",
        ),
        (
            put("target.files.0.path", "zwei"),
            'target: path "zwei" is a file, and also the folder of "zwei/2.safetensors"',
        ),
        (
            add("shards", file("delta-00001-of-00001.safetensors")),
            'shards: path "delta-00001-of-00001.safetensors" appears twice',
        ),
        (
            put("shards.0.path", "release.json"),
            'shards: path "release.json" appears twice',
        ),
        (
            put("shards.0.path", "sha256sums"),
            'shards: paths "sha256sums" and "SHA256SUMS" are one file where case or '
            "Unicode form is not kept apart",
        ),
        (
            put("shards.0.path", "target/x"),
            'shards: path "target" is a file, and also the folder of "target/x"',
        ),
    ],
)
def test_paths_that_clash_are_refused(change: Change, message: str) -> None:
    assert refusal(change) == message


def test_a_target_may_have_files_named_like_the_release_s() -> None:
    changed = document()
    changed["target"]["files"] = [file("release.json"), file("SHA256SUMS"), file("target")]
    assert "release.json" in parse(packed(changed)).rebuilt


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            put("target.weights.0.header", "{}"),
            "expected the file to end at the 0 bytes of data of its tensors, found 158 "
            "bytes of data",
        ),
        (
            put("target.weights.0.size", ONE["size"] + 1),
            "expected the file to end at the 8 bytes of data of its tensors, found 9 bytes "
            "of data",
        ),
        (
            put("target.weights.0.size", ONE["size"] - 1),
            'tensor "same": data_offsets: expected an end of at most 7, the bytes of data '
            "in the file, found [4, 8]; the file may be cut short",
        ),
        (
            put("target.weights.0.size", 100),
            "header length: expected at most 92, the bytes that follow it, found 152; the "
            "file may be cut short",
        ),
        (header(0, "[]"), "header: expected an object, found an array of 0"),
    ],
)
def test_headers_that_are_not_of_the_file_are_refused(change: Change, message: str) -> None:
    assert refusal(change) == f"target: 1.safetensors: {message}"
