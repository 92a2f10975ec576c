"""Licences at their edges: odd names, odd folders, chains of chains, costly documents."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from releasekit import (
    IntegrityError,
    Licensing,
    ReleaseKitError,
    UsageError,
    apply_delta,
    check_licenses,
    make_delta,
    open_delta,
    stricttoml,
)
from releasekit.errors import FormatError
from releasekit.hub.cards import split
from releasekit.license_files import kind_of, load_catalogue, read_chain
from releasekit.licenses import chain as chains
from releasekit.licenses.chain import Chain, Grant, Kind, Text
from releasekit.licenses.evidence import CardEvidence, Evidence
from releasekit.licenses.rules import check
from tests.builders import model_folder
from tests.fakehub import FakeHub

CATALOGUE = load_catalogue()
BASE = {"w": ("BF16", [2], b"abcd")}
TARGET = {"w": ("BF16", [2], b"abce")}


def grant(name: str, of: str = "Tune", **fields: Any) -> Grant:
    return replace(Grant.under(CATALOGUE.get(name), of, ()), **fields)


def rules(chain: Chain, *, files: tuple[str, ...] = (), **fields: Any) -> list[str]:
    kept: dict[str, Any] = {"name": "Tune", "delta": True, "card_expected": False}
    kept |= fields
    evidence = Evidence(chain=chain, files=frozenset(files), **kept)
    return [finding.rule.id for finding in check(evidence, CATALOGUE)]


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return model_folder(tmp_path / "base", BASE), model_folder(tmp_path / "target", TARGET)


def made(base: Path, target: Path, out: Path, **said: Any) -> Any:
    return make_delta(base, target, out, licensing=Licensing(**said))


@pytest.mark.parametrize("document", [b"a." * 3000 + b"a = 1", b"[" + b"a." * 3000 + b"a]"])
def test_dotted_keys_do_not_exhaust_the_stack(document: bytes) -> None:
    with pytest.raises(FormatError):
        stricttoml.loads(document, "x")


@pytest.mark.parametrize(
    "value",
    [
        '!!int ""',
        '!!int "+"',
        '!!float ""',
        '!!bool "x"',
        '!!timestamp "x"',
        "!!set [a]",
        "!!map [a]",
    ],
)
def test_yaml_tags_that_do_not_fit_are_refused(value: str) -> None:
    with pytest.raises(FormatError):
        split(f"---\nlicense: {value}\n---\n".encode(), "x")


def test_a_card_of_aliases_costs_nothing() -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    # Written out, the last would have 10 ** 16 items.
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 16)]
    card = "\n".join(["---", *lines, "license: *a15", "---", ""])
    data, text = split(card.encode(), "x")
    found = rules(Chain(release=grant("mit")), card=CardEvidence(data=data, text=text))
    assert "card-license" in found


@pytest.mark.parametrize("teacher", ["", "a\nb", "x" * 1001, "\x1b[2J"])
def test_a_teacher_that_no_chain_can_hold_is_refused_at_once(
    pair: tuple[Path, Path], tmp_path: Path, teacher: str
) -> None:
    with pytest.raises(ReleaseKitError):
        made(*pair, tmp_path / "d", license="mit", bases=("mit",), teachers=(teacher,))


def test_a_teacher_that_is_no_text_is_refused(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(UsageError):
        made(*pair, tmp_path / "d", license="mit", bases=("mit",), teachers=("a\udcff",))


@pytest.mark.parametrize("name", [b"ba\nse", b"ba\xffse", b"ba\xc2\xadse"])
def test_a_base_in_a_folder_with_an_odd_name_makes_a_readable_release(
    tmp_path: Path, name: bytes
) -> None:
    base = model_folder(Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)), BASE)
    target = model_folder(tmp_path / "target", TARGET)
    made(base, target, tmp_path / "d", license="mit", bases=("mit",))
    apply_delta(base, tmp_path / "d", tmp_path / "out")


@pytest.mark.parametrize("field", ["name", "url", "version", "spdx", "notice", "hub_name"])
def test_a_record_holds_no_line_that_a_chain_does_not(
    pair: tuple[Path, Path], tmp_path: Path, field: str
) -> None:
    lines = {"id": "own", "name": "Own", "hub": "other", "hub_name": "own", "summary": "s"}
    lines |= {"url": "https://x.example/"}
    long = ("https://" if field == "url" else "") + "x" * 1001
    if field != "notice":
        lines[field] = long
    document = [f"{key} = {json.dumps(value)}" for key, value in lines.items()]
    document += ["commercial = true", "research_only = false", "acceptance = false"]
    if field == "notice":
        document += ["[travels]", f"notice = {json.dumps(long)}"]
    (tmp_path / "r").mkdir()
    (tmp_path / "r/own.toml").write_text("\n".join(document))
    with pytest.raises(FormatError, match=rf"/own\.toml: (travels\.)?{field}: expected "):
        made(*pair, tmp_path / "d", license="own", folders=(tmp_path / "r",))


def test_a_notice_that_is_assembled_can_be_checked(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    (pair[0] / "NOTICE").write_bytes(b"x" * (1 << 20))
    made(*pair, tmp_path / "d", license="mit", bases=("mit",))
    check_licenses(tmp_path / "d")


def test_the_folder_of_licences_is_no_license_file() -> None:
    card = {
        "license": "other",
        "license_name": "llama-1",
        "license_link": "https://x.example/",
    }
    found = rules(
        Chain(release=grant("llama-1"), bases=(grant("llama-1"),)),
        files=("licenses/chain.json", "licenses/llama-1/LICENSE", "NOTICE"),
        card=CardEvidence(data=card, text=""),
    )
    assert "other-incomplete" in found


def test_british_spelling_and_a_dot_do() -> None:
    card = {"license": "other", "license_name": "llama-1", "license_link": "./LICENCE"}
    found = rules(
        Chain(release=grant("llama-1"), bases=(grant("llama-1"),)),
        files=("LICENCE",),
        card=CardEvidence(data=card, text=""),
    )
    assert "other-incomplete" not in found


@pytest.mark.parametrize("name", ["Llama-30B-Tune", "llama-33b", "Llama-34-x"])
def test_a_number_is_not_the_beginning_of_another(name: str) -> None:
    assert "name-prefix" in rules(
        Chain(release=grant("mit"), bases=(grant("llama-3"),)), name=name
    )


def test_either_line_of_qwen_does() -> None:
    found = rules(
        Chain(release=grant("qwen"), bases=(grant("qwen"),)),
        card_expected=True,
        card=CardEvidence(data={"license": "other"}, text="Improved using Qwen"),
    )
    assert "built-with" not in found


def test_the_most_specific_grant_comes_first() -> None:
    own, base, older = grant("cc-by-nc-4.0"), grant("llama-1"), grant("cc-by-nc-4.0", "Old")
    assert Chain(release=own, bases=(base, older)).distinct == (own, base)


def test_a_milder_grant_of_the_same_id_does_not_hide_a_demand() -> None:
    from releasekit.delta.consent import to_accept

    strict = grant("llama-1", "base")
    chain = Chain(release=replace(strict, of="Tune", acceptance=False), bases=(strict,))
    assert [found.id for found in to_accept(chain)] == ["llama-1"]


def test_a_release_whose_chain_is_missing_is_incomplete(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    made(*pair, tmp_path / "d", license="mit", bases=("mit",))
    (tmp_path / "d/target/licenses/chain.json").unlink()
    with pytest.raises(IntegrityError):
        open_delta(tmp_path / "d", pair[0])


def rebuilt(pair: tuple[Path, Path], tmp_path: Path) -> Path:
    (pair[0] / "LICENSE").write_bytes(b"LLAMA")
    made(*pair, tmp_path / "d", license="cc-by-nc-4.0", bases=("llama-1",))
    apply_delta(pair[0], tmp_path / "d", tmp_path / "model", accept_license=True)
    return tmp_path / "model"


def test_a_base_on_the_hub_hands_its_chain_on(
    hub: FakeHub, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    model = rebuilt(pair, tmp_path)
    files = {p.relative_to(model).as_posix(): p for p in model.rglob("*") if p.is_file()}
    hub.put("org/heir", files)
    found = make_delta("org/heir", pair[1], tmp_path / "second")
    assert found.licenses == ("cc-by-nc-4.0", "llama-1")


def test_a_base_that_is_a_file_hands_its_chain_on(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    model = rebuilt(pair, tmp_path)
    found = make_delta(model / "model.safetensors", pair[1], tmp_path / "second")
    assert found.licenses == ("cc-by-nc-4.0", "llama-1")


def test_naming_a_licence_again_loses_nobody(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    model = rebuilt(pair, tmp_path)
    made(model, pair[1], tmp_path / "s1", license="cc-by-nc-4.0", bases=("llama-1",))
    chain = read_chain(tmp_path / "s1")
    assert chain is not None
    assert [(g.of, g.id) for g in chain.bases] == [
        ("target", "cc-by-nc-4.0"),
        ("base", "llama-1"),
    ]


def test_two_ancestors_of_one_licence_both_stay(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    model = rebuilt(pair, tmp_path)
    make_delta(
        model,
        pair[1],
        tmp_path / "s1",
        name="Second",
        licensing=Licensing(license="cc-by-nc-4.0"),
    )
    apply_delta(model, tmp_path / "s1", tmp_path / "m1", accept_license=True)
    made(
        tmp_path / "m1",
        pair[1],
        tmp_path / "s2",
        license="cc-by-nc-4.0",
        bases=("cc-by-nc-4.0",),
    )
    chain = read_chain(tmp_path / "s2")
    assert chain is not None
    assert [g.of for g in chain.bases] == ["Second", "target", "base"]


def test_two_bases_under_one_licence_share_its_text(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    for name in ("LICENSE", "USE_POLICY.md"):
        (pair[0] / name).write_bytes(b"x")
    found = made(*pair, tmp_path / "d", license="llama-2", bases=("llama-2", "llama-2"))
    assert [finding.rule.id for finding in found.findings] == []


@pytest.mark.parametrize(
    "name",
    ["LICENSE.bin", "LICENSE.safetensors", "LICENSE.py", "NOTICE.json", "LICENSE.BAK"],
)
def test_a_program_or_data_is_no_text(name: str) -> None:
    assert kind_of(name) is None


def test_notices_of_third_parties_are_notices() -> None:
    assert kind_of("THIRD_PARTY_NOTICES.txt") is Kind.NOTICE


def test_the_license_file_is_text_where_there_is_text(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    (pair[0] / "LICENSE.pdf").write_bytes(b"%PDF")
    (pair[0] / "LICENSE.txt").write_bytes(b"text")
    made(*pair, tmp_path / "d", license="llama-1", bases=("llama-1",))
    assert (tmp_path / "d/LICENSE").read_bytes() == b"text"


def test_a_link_to_nothing_is_no_text(pair: tuple[Path, Path], tmp_path: Path) -> None:
    model = rebuilt(pair, tmp_path)
    text = model / "licenses/llama-1/LICENSE"
    text.unlink()
    text.symlink_to("gone")
    found = check_licenses(model, public=False)
    assert {"text-missing", "text-changed"} & {
        finding.rule.id for finding in found.findings
    }


def test_a_listed_text_that_is_gone_is_found(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    model = rebuilt(pair, tmp_path)
    (model / "licenses/cc-by-nc-4.0/LICENSE.txt").unlink()
    found = check_licenses(model, public=False)
    assert {"text-missing", "text-changed"} & {
        finding.rule.id for finding in found.findings
    }


def test_a_folder_of_records_that_is_not_there_is_refused(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(ReleaseKitError):
        made(*pair, tmp_path / "d", folders=(tmp_path / "gone",))


def test_a_target_with_a_malformed_chain_is_refused(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    (pair[1] / "licenses").mkdir()
    (pair[1] / "licenses/chain.json").write_bytes(b"{}")
    with pytest.raises(FormatError):
        make_delta(*pair, tmp_path / "d")


def test_an_unsafe_path_is_said_with_its_place() -> None:
    text = Text(path="licenses/../x", kind=Kind.LICENSE, sha256="0" * 64)
    document = Chain(bases=(grant("mit", texts=(text,)),)).pack()
    with pytest.raises(FormatError) as error:
        chains.parse(document, "chain.json")
    assert str(error.value).startswith("chain.json: bases[0].texts[0].path: ")


def test_why_is_a_sentence() -> None:
    own = grant("mit", id="zzzzzzzzzz")
    evidence = Evidence(name="x", delta=False, chain=Chain(release=own), files=frozenset())
    (why,) = [f.why for f in check(evidence, CATALOGUE) if f.rule.id == "license-unknown"]
    assert why == 'licence "zzzzzzzzzz" is not known'


@pytest.mark.parametrize("teacher", ["llama-1", "mrl", "qwen-research", "cc-by-nc-4.0"])
def test_a_teacher_that_may_not_be_used_commercially_is_told(teacher: str) -> None:
    chain = Chain(release=grant("mit"), bases=(grant("mit"),), teachers=(teacher,))
    assert "teacher-terms" in rules(chain)


def test_what_is_wrong_with_a_card_is_printable() -> None:
    with pytest.raises(FormatError) as error:
        split('---\n\ufeff"a\n---\n'.encode(), "x")
    assert str(error.value).isprintable()


def test_a_name_may_break_over_lines() -> None:
    found = rules(
        Chain(release=grant("cc-by-nc-4.0"), bases=(grant("llama-1"),)),
        card_expected=True,
        card=CardEvidence(
            data={"license": "cc-by-nc-4.0"}, text="Under the LLaMA License\nAgreement."
        ),
    )
    assert "restrictions-dropped" not in found


def test_an_unknown_id_of_a_file_is_answered_with_the_closest(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "F").write_bytes(b"x")
    with pytest.raises(ReleaseKitError, match="did you mean"):
        made(*pair, tmp_path / "d", license="mit", files=(f"lama-2={tmp_path / 'F'}",))


def test_metadata_that_take_minutes_to_read_are_refused() -> None:
    with pytest.raises(FormatError) as error:
        split(b"---\na: 1" + b":1" * 150_000 + b"\n---\n", "x")
    assert str(error.value) == (
        "x: metadata: expected at most 262144 characters, found 300004"
    )
