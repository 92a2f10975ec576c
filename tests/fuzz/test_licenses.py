"""Records, chains, cards and names of any bytes: read, or an error of ours, and soon.

What is read must hold what it says: no path that leaves its folder, no line that does more
to a terminal than stand there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from releasekit import Licensing, ReleaseKitError, check_licenses, stricttoml
from releasekit.hub.cards import split
from releasekit.license_files import kind_of, load_catalogue, texts_in
from releasekit.licenses import chain as chains
from releasekit.licenses import records
from releasekit.licensing.drawing import draw_up
from releasekit.names import safe_path
from tests.fuzz import mutation

SECONDS = 2.0  # all of it takes thousandths; a busy machine is not a failing test
ROOT = Path(__file__).parents[2]
FEWER = settings(max_examples=settings().max_examples // 3)
T = TypeVar("T")


def attempt(call: Callable[[], T], start: str = "x: ", *, quotes: bool = False) -> T | None:
    """What `call` returns; None if it refuses in words that begin with its subject.

    With `quotes`, they may hold a piece of what was read, which is escaped when printed.
    """
    began = time.perf_counter()
    try:
        return call()
    except ReleaseKitError as error:
        message = str(error)
    finally:
        assert time.perf_counter() - began < SECONDS
    assert message.startswith(start)
    assert quotes or message.isprintable()
    return None


#: Syntax of TOML, JSON and YAML, and what their parsers trip over.
TOKENS = [
    *(b'"', b"'", b'"""', b"'''", b"\\", b"{", b"}", b"[", b"]", b"[[", b":", b","),
    *(b"=", b"."),
    *(b"\n", b"\r\n", b"\r", b" ", b"\t", b"\0", b"\xff", b"\xef\xbb\xbf", b"#"),
    *(b"- ", b"? "),
    *(b"nan", b"-inf", b"1e999", b"9" * 5000, b"0x", b"1979-05-27", b"25:00:00", b"true"),
    *(b"null", b"\\ud800", b"\\u202e", b"\\u0000", b"---\n", b"...\n"),
    *(b"&a ", b"*a", b"<<: "),
    *(b"!!str ", b"!!omap ", b"!x ", b"|\n", b">\n", b"%YAML 9\n", b"@", b"`"),
]  # fmt: skip


mutated = partial(mutation.mutated, tokens=TOKENS)


RECORDS = [path.read_bytes() for path in sorted((ROOT / "licenses").glob("*.toml"))]
CARD = b"""---
license: other
license_name: llama-1
license_link: LICENSE
base_model: [org/base, &a org/other]
extra_gated_fields: {I agree: checkbox, Country: country}
model-index:
- name: x
  results: []
date: 2023-07-18
---

# A model

Built with Llama.
"""
TEXT = {"path": "licenses/mit/LICENSE", "kind": "license", "sha256": "0" * 64}
GRANT: dict[str, Any] = {
    "of": "org/base",
    "id": "own",
    "name": "Our Licence",
    "hub": "other",
    "hub_name": "ours",
    "url": "https://x.example/",
    "commercial": True,
    "research_only": False,
    "acceptance": False,
    "notice": "Ours.",
    "summary": "Do as you like.",
    "texts": [TEXT],
}
CHAIN: dict[str, Any] = {
    "format": "releasekit-licenses/1",
    "bases": [GRANT, GRANT],
    "release": GRANT,
    "rebuilt": GRANT,
    "teachers": ["gpt-4"],
}
#: Values that documents hold where they should not.
ODD: list[Any] = [
    *(None, True, 0, -1, 1.5, 2**63, "", "x", "1", "\ud800", "\x1b[2J\n", "\u202ex"),
    *([], {}, [[]], [{}], ["x"], {"x": "y"}, "0" * 64, "F" * 64, "x" * 3000, [TEXT] * 2),
    *("../x", "/x", "licenses/../x", "licenses/chain.json", "licenses/CON", "licenses/a:b"),
    *("licenses", "licenses/", "licenses//x", "Licenses/x", "licenses/x.", "a/b", "other"),
]


@st.composite
def changed(draw: st.DrawFn, document: Any) -> bytes:
    """A JSON document, some of whose values are others, twice there, or missing."""
    value = deepcopy(document)
    for _ in range(draw(st.integers(0, 3))):
        at: Any = value
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(at[key], (dict, list)) and draw(st.booleans()):
                at = at[key]
                continue
            if draw(st.integers(0, 4)):
                at[key] = deepcopy(draw(st.sampled_from(ODD)))
            elif isinstance(at, dict):
                del at[key]
            else:
                at.append(deepcopy(at[key]))
            break
    return json.dumps(value).encode()


def is_line(text: str | None) -> bool:
    return text is None or (text != "" and text.isprintable())


@given(mutated(*RECORDS) | st.binary(max_size=60))
@example(b"a = " + b"[" * 100_000)
@example(b"a." * 300 + b"b = 1")
def test_toml_is_read_or_refused(document: bytes) -> None:
    found = attempt(lambda: stricttoml.loads(document, "x"))
    if found is not None:
        json.dumps(found, allow_nan=False)


@given(mutated(*RECORDS))
def test_records_are_read_or_refused(document: bytes) -> None:
    record = attempt(lambda: records.parse(document, "x"))
    if record is None:
        return
    for text in (record.name, record.url, record.summary, record.hub_name, record.version):
        assert is_line(text)
    assert is_line(record.travels.notice)
    assert "/" not in record.id
    assert not (record.commercial and record.research_only)
    catalogue = records.Catalogue([record])
    assert catalogue.get(record.id) is record


@given(changed(CHAIN) | mutated(json.dumps(CHAIN).encode()))
@example(b'{"format":"releasekit-licenses/1","bases":' + b"[" * 100_000)
def test_chains_are_read_or_refused(document: bytes) -> None:
    chain = attempt(lambda: chains.parse(document, "x"))
    if chain is None:
        return
    assert chains.parse(chain.pack(), "x") == chain
    for grant in chain.grants:
        for line in (grant.name, grant.url, grant.summary, grant.notice, grant.hub_name):
            assert is_line(line)
        assert grant.of == "" or is_line(grant.of)
        assert "/" not in grant.id
        for text in grant.texts:
            assert safe_path(text.path, "").startswith("licenses/")
            assert text.path != chains.CHAIN
    assert all(is_line(teacher) for teacher in chain.teachers)


@given(mutated(CARD, b"---\n---\n", b"# no metadata\n") | st.binary(max_size=40))
@example(b"---\na: " + b"[" * 300 + b"\n---\n")
@example(b"---\n" + b"? " * 1000 + b"\n---\n")
@example(b"---\na: 2023-99-99\n---\n")
@example(b"---\na: !!python/object/apply:os.system [x]\n---\n")
@example(b"---\na: 1\na: 2\n---\n")
@example(b"---\n1: 2\n---\n")
def test_cards_are_read_or_refused(document: bytes) -> None:
    found = attempt(lambda: split(document, "x"), quotes=True)
    if found is not None:
        data, body = found
        assert all(isinstance(key, str) for key in data)
        assert document.decode("utf-8-sig").endswith(body)


def test_yaml_runs_nothing_and_gets_no_object_but_plain_ones(tmp_path: Path) -> None:
    for tag in ("python/object/apply:os.mkdir", "python/name:os.mkdir", "python/tuple"):
        card = f"---\na: !!{tag} ['{tmp_path / 'made'}']\n---\n".encode()
        assert attempt(lambda card=card: split(card, "x")) is None  # type: ignore[misc]
    assert list(tmp_path.iterdir()) == []


@given(st.text(max_size=40) | st.from_regex(r"(?i)(licen[cs]e|notice|use.policy).{0,30}"))
@example("license" + "_license" * 30)
@example("_" * 255)
def test_any_name_of_a_file_is_judged(name: str) -> None:
    began = time.perf_counter()
    kind_of(name)
    assert time.perf_counter() - began < SECONDS


SAID = st.sampled_from(
    ["mit", "LLaMA2", "cc-by-nc-4.0", "lama", "", " ", "größe", "=", "other"]
)

FILES = st.sampled_from(["mit=x", "x=y=z", "llama-2=/", "mit=LICENSE"])


@FEWER
@given(
    st.none() | SAID,
    st.lists(SAID, max_size=3),
    st.none() | SAID,
    st.lists(SAID | FILES, max_size=2),
)  # fmt: skip
def test_whatever_a_maintainer_says_is_drawn_up_or_refused(
    license: str | None, bases: list[str], rebuilt: str | None, files: list[str]
) -> None:
    said = Licensing(
        license=license, bases=tuple(bases), rebuilt=rebuilt, files=tuple(files)
    )
    papers = attempt(lambda: draw_up(said, "Tune", None, "", delta=True), start="")
    if papers is not None:
        assert chains.parse(papers.texts[chains.CHAIN], "x") == papers.chain


@FEWER
@given(changed(CHAIN), mutated(CARD), st.binary(max_size=20))
def test_any_folder_is_checked_or_refused(
    tmp_path_factory: pytest.TempPathFactory, chain: bytes, card: bytes, notice: bytes
) -> None:
    folder = tmp_path_factory.mktemp("model")
    (folder / "licenses").mkdir()
    (folder / chains.CHAIN).write_bytes(chain)
    (folder / "README.md").write_bytes(card)
    (folder / "NOTICE").write_bytes(notice)
    assert "NOTICE" in texts_in(folder) or not notice
    found = attempt(lambda: check_licenses(folder), start=f"{folder}/", quotes=True)
    if found is not None:
        assert all(str(finding).isprintable() for finding in found.findings)


def test_every_record_is_read() -> None:
    assert len(list(load_catalogue())) == len(RECORDS)
