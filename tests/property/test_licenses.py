"""Chains, records and notices of any values: what is written is what is read."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from releasekit.license_files import kind_of, load_catalogue
from releasekit.licenses.chain import Chain, Grant, Kind, Text
from releasekit.licenses.chain import parse as parse_chain
from releasekit.licenses.evidence import CardEvidence, Evidence
from releasekit.licenses.notice import assemble
from releasekit.licenses.records import OTHER, Catalogue, LicenseRecord
from releasekit.licenses.records import parse as parse_record
from releasekit.licenses.rules import check

CATALOGUE = load_catalogue()
FEWER = settings(max_examples=settings().max_examples // 3)
PRINTABLE = st.characters(exclude_categories=["C", "Z"])
lines = st.text(PRINTABLE, min_size=1, max_size=30)
optional = st.none() | lines
ids = st.from_regex(r"[a-z0-9]([a-z0-9.+-]{0,20}[a-z0-9+])?", fullmatch=True)
known = st.sampled_from([record.id for record in CATALOGUE])


@st.composite
def texts(draw: st.DrawFn, license_id: str) -> tuple[Text, ...]:
    names = draw(st.lists(ids, max_size=3, unique=True))
    return tuple(
        Text(
            path=f"licenses/{license_id.rstrip('.')}/x{name}",
            kind=draw(st.sampled_from(Kind)),
            sha256=f"{index:064x}",
        )
        for index, name in enumerate(names)
    )


@st.composite
def grants(draw: st.DrawFn) -> Grant:
    """Grants of licences that have a record, and of others."""
    id = draw(known | ids)
    hub = draw(st.sampled_from(["mit", OTHER]))
    return Grant(
        of=draw(st.just("") | lines),
        id=id,
        name=draw(lines),
        hub=hub,
        hub_name=draw(lines) if hub == OTHER else None,
        spdx=draw(optional),
        version=draw(optional),
        date=draw(optional),
        url=draw(lines),
        commercial=draw(st.booleans()),
        research_only=draw(st.booleans()),
        acceptance=draw(st.booleans()),
        notice=draw(optional),
        summary=draw(lines),
        texts=draw(texts(id)),
    )


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    """Chains, each path of which has one digest."""
    chain = Chain(
        bases=tuple(draw(st.lists(grants(), max_size=3))),
        release=draw(st.none() | grants()),
        rebuilt=draw(st.none() | grants()),
        teachers=tuple(draw(st.lists(lines | known, max_size=3))),
    )
    digests: dict[str, str] = {}
    for grant in chain.grants:
        for text in grant.texts:
            if digests.setdefault(text.path, text.sha256) != text.sha256:
                return Chain(teachers=chain.teachers)
    return chain


@FEWER
@given(chains())
def test_a_chain_is_read_as_it_was_written(chain: Chain) -> None:
    document = chain.pack()
    assert parse_chain(document, "chain.json") == chain
    assert parse_chain(document, "chain.json").pack() == document


@FEWER
@given(chains())
def test_each_licence_of_a_chain_stands_once(chain: Chain) -> None:
    found = [grant.id for grant in chain.distinct]
    assert len(found) == len(set(found))
    assert set(found) == {grant.id for grant in chain.grants}
    assert set(chain.distinct) <= set(chain.grants)


@FEWER
@given(chains(), lines, st.lists(st.tuples(lines, st.binary(max_size=40)), max_size=3))
def test_a_notice_holds_what_it_must(
    chain: Chain, name: str, notices: list[tuple[str, bytes]]
) -> None:
    found = assemble(chain, name, notices)
    assert found == assemble(chain, name, notices)
    assert found.startswith(name.encode())
    assert found.endswith(b"\n")
    for grant in chain.grants:
        assert grant.notice is None or grant.notice.encode() in found
        assert f"\n{grant.of or 'a base'}: ".encode() in found
    for path, data in notices:
        assert f"---- {path} ----\n\n".encode() + data in found


@FEWER
@given(
    chains(),
    lines,
    st.booleans(),
    st.booleans(),
    st.none()
    | st.dictionaries(st.sampled_from(["license", "license_name"]), lines | known),
)
def test_the_check_is_of_order_whatever_it_is_given(
    chain: Chain, name: str, delta: bool, public: bool, card: dict[str, str] | None
) -> None:
    evidence = Evidence(
        name=name,
        delta=delta,
        chain=chain,
        files=frozenset(text.path for grant in chain.grants for text in grant.texts),
        notices=assemble(chain, name, ()),
        card=None if card is None else CardEvidence(data=card, text=""),
        public=public,
    )
    found = check(evidence, CATALOGUE)
    assert found == check(evidence, CATALOGUE)
    assert [finding.is_error for finding in found] == sorted(
        (finding.is_error for finding in found), reverse=True
    )
    assert len({str(finding) for finding in found}) == len(found)
    assert all(str(finding).isprintable() for finding in found)
    unknown = {grant.id for grant in chain.grants if CATALOGUE.find(grant.id) is None}
    rules = {finding.rule.id for finding in found}
    assert ("license-unknown" in rules) is bool(unknown)
    assert ("license-missing" in rules) is (chain.release is None)


@st.composite
def records(draw: st.DrawFn) -> tuple[dict[str, object], LicenseRecord]:
    """Fields of a record, and what they say."""
    hub = draw(st.sampled_from(["mit", OTHER]))
    research = draw(st.booleans())
    fields: dict[str, object] = {
        "id": draw(ids),
        "name": draw(lines),
        "hub": hub,
        "url": "https://" + draw(ids),
        "commercial": not research and draw(st.booleans()),
        "research_only": research,
        "acceptance": draw(st.booleans()),
        "summary": draw(lines),
        "aliases": tuple(draw(st.lists(ids, max_size=3))),
    }
    if hub == OTHER:
        fields["hub_name"] = draw(lines)
    for name in draw(st.sets(st.sampled_from(["version", "spdx"]))):
        fields[name] = draw(ids.map(lambda text: text.replace("+", "-")))
    return fields, LicenseRecord(**fields)  # type: ignore[arg-type]


def toml(value: object) -> str:
    """Strings and arrays of them are the same in TOML as in JSON, but for escaped pairs."""
    return json.dumps(value, ensure_ascii=False)


@FEWER
@given(records())
def test_a_record_says_what_its_fields_say(
    found: tuple[dict[str, object], LicenseRecord],
) -> None:
    fields, record = found
    document = "".join(f"{key} = {toml(value)}\n" for key, value in fields.items())
    assert parse_record(document.encode(), "x.toml") == record
    catalogue = Catalogue([record])
    for name in record.names:
        assert catalogue.find(name.upper()) is record or name.upper().lower() != name


@given(st.text(max_size=30))
def test_any_name_may_be_asked_for(name: str) -> None:
    assert CATALOGUE.hint(name).isprintable()
    found = CATALOGUE.find(name)
    assert found is None or name.strip().lower() in found.names


@given(
    st.sampled_from(["LICENSE", "License", "licence", "NOTICE", "Use_Policy", "README"]),
    st.sampled_from(["", ".txt", ".md", ".TXT", ".json", ".safetensors.index.json"]),
)
def test_what_a_file_is_does_not_hang_on_its_case(stem: str, suffix: str) -> None:
    kind = kind_of(f"{stem.title()}{suffix}")
    assert kind is kind_of(f"{stem.lower()}{suffix}")
    if suffix.lower() in ("", ".txt", ".md"):
        assert kind is kind_of(f"{stem.upper()}{suffix}")
        assert (kind is None) is (stem == "README")
