"""Signatures, keys, certificates, trust and lists of any bytes: right, or an error of ours.

Whatever is refused is refused soon, within little memory and in words fit for a terminal.
What is not refused must be right: other parsers read the same, nobody's signature is taken
for another's, and no file is found to be signed that is not.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID
from hypothesis import example, given, settings
from hypothesis import strategies as st

from releasekit import Policy, PrivateKey, PublicKey, ReleaseKitError, make_delta
from releasekit import trust as trusts
from releasekit.authenticity import Status, authenticate
from releasekit.checkpoint.discover import find
from releasekit.checkpoint.safetensors import SafetensorsCheckpoint
from releasekit.codec import Ulp
from releasekit.delta.trusted import open_trusted
from releasekit.errors import FormatError, UsageError
from releasekit.manifest_parser import parse as parse_manifest
from releasekit.names import is_publisher, refuse_clashes, safe_path
from releasekit.provenance import pack as pack_provenance
from releasekit.provenance import read_epoch
from releasekit.signing import bundle, chains, statement, succession
from releasekit.signing.rotation import rotate
from releasekit.signing.statement import Statement
from releasekit.sums import format_sums, parse_sums
from releasekit.trust import Seen, Trust
from releasekit.versions import is_version, order
from tests.builders import model_folder, safetensors_bytes
from tests.integration.tools import small_pair

SECONDS = 2.0  # all of it takes thousandths; a busy machine is not a failing test
FEWER = settings(max_examples=settings().max_examples // 3)

T = TypeVar("T")


def attempt(call: Callable[[], T], start: str = "x: ") -> T | None:
    """What `call` returns; None if it refuses in words that begin with its subject."""
    began = time.perf_counter()
    try:
        return call()
    except ReleaseKitError as error:
        message = str(error)
    finally:
        assert time.perf_counter() - began < SECONDS
    assert message.startswith(start)
    assert message.isprintable()
    return None


# What faults are made of: syntax of JSON, PEM and base64, tags and lengths of DER.
TOKENS = [
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b"\n", b"\r\n", b"\r", b" ", b"\0"),
    *(b"null", b"{}", b"[]", b'""', b"0", b"-1", b"1e999", b'"x"', b"\\ud800", b"\xff"),
    *(b"=", b"==", b"A", b"/", b"-----", b"-----BEGIN PUBLIC KEY-----\n", b"PRIVATE KEY"),
    *(b"0\x80", b"\x30\0", b"\x02\x01\0", b"\x02\x01\xff", b"\x03\x02\x07\0", b"\x04\0"),
    *(b"\x84\xff\xff\xff\xff", b"\xff" * 8, b"\x06\x01*", b"\xa0\x03\x02\x01\x02"),
]


@st.composite
def mutated(draw: st.DrawFn, *valid: bytes) -> bytes:
    """Bytes of a document after a few cuts, copies and insertions, or changed in place."""
    data = draw(st.sampled_from(valid))
    for _ in range(draw(st.integers(0, 3))):
        begin = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["token", "bytes", "copy", "bit", "bit", "bit"]))
        if kind == "token":
            new = draw(st.sampled_from(TOKENS))
        elif kind == "bytes":
            new = draw(st.binary(max_size=3))
        elif kind == "copy":
            start = draw(st.integers(0, len(data)))
            new = data[start : start + draw(st.integers(0, 60))]
        else:
            new = bytes(byte ^ 1 << draw(st.integers(0, 7)) for byte in data[begin:][:1])
        taken = (
            len(new) if kind == "bit" else draw(st.sampled_from([0, 0, 1, len(new), 30]))
        )
        data = data[:begin] + new + data[begin + taken :]
    return data


#: Values that documents hold where they should not.
ODD: list[Any] = [
    *(None, True, 0, -1, 1.5, 2**63, "", "x", "1", "\ud800", "\x1b[2J\n", "\u202ex"),
    *([], {}, [[]], [{}], ["x"], {"x": "y"}, "0" * 64, "F" * 64, "AA==", "AB==", "A A="),
    *("../x", "/x", "a", "A", "CON", "a/b", "files", "sha256", "dir"),
]


@st.composite
def altered(draw: st.DrawFn, document: object) -> bytes:
    """A JSON document with a few values replaced, removed, repeated or renamed."""
    root = [deepcopy(document)]
    for _ in range(draw(st.integers(1, 3))):
        everything = list(_values(root))
        holders = [
            value for value in everything if value and isinstance(value, dict | list)
        ]
        holder: Any = holders[draw(st.integers(0, len(holders) - 1))]
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = keys[draw(st.integers(0, len(keys) - 1))]
        known = everything[draw(st.integers(0, len(everything) - 1))]
        new = deepcopy(draw(st.sampled_from([*ODD, known, known])))
        match draw(st.sampled_from(["replace", "replace", "add", "repeat", "remove"])):
            case "add" if isinstance(holder, dict):
                holder[draw(st.sampled_from(["x", "digest", "keyid", "hint", "é"]))] = new
            case "repeat" if isinstance(holder, list) and holder is not root:
                holder.insert(draw(st.integers(0, len(holder))), deepcopy(holder[key]))
            case "remove" if holder is not root:
                del holder[key]
            case _:
                holder[key] = new
    spaces = draw(st.sampled_from([None, 1]))
    return json.dumps(root[0], indent=spaces).encode()


def _values(value: object) -> Iterator[object]:
    """A JSON value and all values in it."""
    yield value
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _values(inner)


def private(number: int, curve: ec.EllipticCurve | None = None) -> PrivateKey:
    """The same key for the same number."""
    return PrivateKey(ec.derive_private_key(number, curve or ec.SECP256R1()))


KEYS = [private(number) for number in range(1, 6)]
KEY = KEYS[0]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# Bundles.

STATEMENT = Statement(
    name="größe", files={name: digest(name) for name in ("a", "b/ß.txt", "c.json")}
)
PAYLOAD = STATEMENT.pack(["model.sig"])
BUNDLE = bundle.sign(PAYLOAD, KEY)
SIGNATURE = bundle.parse(BUNDLE, "x").signature


def with_certificates(bundled: bytes, certificates: list[bytes]) -> bytes:
    """The bundle with certificates in place of the key's name."""
    document = json.loads(bundled)
    chain = [{"rawBytes": base64.b64encode(item).decode()} for item in certificates]
    material = {"x509CertificateChain": {"certificates": chain}, "tlogEntries": []}
    return json.dumps(document | {"verificationMaterial": material}).encode()


CERTIFIED = with_certificates(BUNDLE, [b"one", b"another"])


def check_bundle(data: bytes) -> None:
    found = attempt(lambda: bundle.parse(data, "x"))
    if found is None:
        return
    document = json.loads(data)
    envelope = document["dsseEnvelope"]
    (signature,) = envelope["signatures"]
    assert base64.b64encode(found.payload).decode() == envelope["payload"]
    assert base64.b64encode(found.signature).decode() == signature["sig"]
    material = document["verificationMaterial"]
    assert found.hint == (material.get("publicKey", {}).get("hint") or None)
    chain = material.get("x509CertificateChain", {}).get("certificates", [])
    assert [base64.b64encode(item).decode() for item in found.certificates] == [
        item["rawBytes"] for item in chain
    ]
    assert len(chain) <= 16
    if KEY.public.verifies(found.signature, found.message):
        assert found.payload == PAYLOAD


@given(st.binary(max_size=64))
def test_bundles_of_any_bytes(data: bytes) -> None:
    check_bundle(data)


@given(mutated(BUNDLE, CERTIFIED))
def test_mutated_bundles(data: bytes) -> None:
    check_bundle(data)


@given(altered(json.loads(BUNDLE)) | altered(json.loads(CERTIFIED)))
def test_altered_bundles(data: bytes) -> None:
    check_bundle(data)


CURVES = [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()]


@FEWER
@given(payload=st.binary(max_size=300), curve=st.sampled_from(CURVES))
def test_what_is_signed_is_read_again(payload: bytes, curve: ec.EllipticCurve) -> None:
    key, other = private(7, curve), private(8, curve)
    found = bundle.parse(bundle.sign(payload, key), "x")
    assert (found.payload, found.hint) == (payload, key.public.hint)
    assert key.public.verifies(found.signature, found.message)
    assert not other.public.verifies(found.signature, found.message)
    assert not key.public.verifies(found.signature, found.message + b"\0")


@FEWER
@given(st.binary(max_size=80) | mutated(SIGNATURE))
def test_only_the_signature_is_one(signature: bytes) -> None:
    message = bundle.parse(BUNDLE, "x").message
    assert KEY.public.verifies(signature, message) == (signature == SIGNATURE)


@pytest.mark.parametrize("place", ["tlogEntries", "certificates", "signatures"])
def test_a_bundle_of_many_entries_takes_little_memory(place: str) -> None:
    document = json.loads(CERTIFIED if place == "certificates" else BUNDLE)
    material: dict[str, Any] = document["verificationMaterial"]
    many: list[dict[str, str]] = [{} for _ in range(20_000)]
    if place == "signatures":
        document["dsseEnvelope"][place] = many
    elif place == "certificates":
        material["x509CertificateChain"][place] = many
    else:
        material[place] = many
    data = json.dumps(document).encode()
    # As much again as the values themselves; the largest bundle has 500 times as many.
    assert peak_nbytes(lambda: bundle.parse(data, "x")) < 5 << 20


def peak_nbytes(call: Callable[[], object]) -> int:
    """The most memory that a call, which may be refused, held beyond what there was."""
    tracemalloc.start()
    try:
        attempt(call, "")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# Statements.

HOSTILE = [
    "../a",
    "/a",
    "a\\b",
    "a:b",
    "CON",
    "a.",
    "",
    "a//b",
    "\u202ea",
    "A",
    "é",
    "e\u0301",
]
NAMES = (
    st.sampled_from(["a", "b", "a/b", "model.safetensors", "größe", *HOSTILE])
    | st.text("aAb/.é ", min_size=1, max_size=6)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
)
DIGESTS = st.sampled_from([digest(str(number)) for number in range(4)])


def check_statement(payload: bytes) -> None:
    found = attempt(lambda: statement.parse(payload, "x"))
    if found is None:
        return
    check_names(list(found.files))
    document = json.loads(payload)
    resources = document["predicate"]["resources"]
    assert list(found.files.items()) == [(r["name"], r["digest"]) for r in resources]
    assert found.name == document["subject"][0]["name"]
    assert statement.parse(found.pack(), "x") == found


def check_names(names: list[str]) -> None:
    """There is at least one, and each is a file of its own inside the folder, anywhere."""
    assert names
    for name in names:
        assert safe_path(name, "x") == name
        path = PurePosixPath("/folder") / name
        assert path.as_posix() == f"/folder/{name}"
        assert not {"..", "."} & set(path.parts)
        assert not re.search(r"[\\:\0-\x1f]", name)
    refuse_clashes(names, "x")
    assert len({name.casefold() for name in names}) == len(names)


@given(st.binary(max_size=64) | mutated(PAYLOAD) | altered(json.loads(PAYLOAD)))
def test_statements_of_any_bytes(payload: bytes) -> None:
    check_statement(payload)


@FEWER
@given(resources=st.lists(st.tuples(NAMES, DIGESTS), max_size=4), data=st.data())
def test_statements_of_any_files(
    resources: list[tuple[str, str]], data: st.DataObject
) -> None:
    document = json.loads(PAYLOAD)
    document["predicate"]["resources"] = [
        {"name": name, "algorithm": "sha256", "digest": digest}
        for name, digest in resources
    ]
    raw = b"".join(bytes.fromhex(digest) for _, digest in resources)
    document["subject"][0]["digest"]["sha256"] = hashlib.sha256(raw).hexdigest()
    document["predicate"]["serialization"]["ignore_paths"] = data.draw(st.lists(NAMES))
    check_statement(json.dumps(document).encode())


@given(
    name=NAMES, files=st.dictionaries(NAMES, DIGESTS, max_size=4), ignored=st.lists(NAMES)
)
def test_statements_survive_packing(
    name: str, files: dict[str, str], ignored: list[str]
) -> None:
    made = Statement(name=name, files=files)
    payload = attempt(lambda: made.pack(ignored), "model.sig: ")
    if payload is None:
        assert attempt(lambda: refuse_all(files)) is None
        return
    assert statement.parse(payload, "x") == made


def refuse_all(files: dict[str, str]) -> bool:
    """Refuses names that no statement may have."""
    if not files:
        raise FormatError("x: no files")
    for name in files:
        safe_path(name, "x")
    refuse_clashes(files, "x")
    return True


# Successions of keys.


def link(old: int, new: int) -> bytes:
    return succession.vouch(KEYS[old], KEYS[new].public)


LINKS = link(0, 1) + link(1, 2) + link(2, 3)
EDGES = [(0, 1), (1, 2), (2, 3), (0, 3), (3, 0), (4, 1), (1, 1)]


def payload_of(line: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(bundle.parse(line.strip(), "x").payload)
    return document


@given(st.binary(max_size=64) | mutated(LINKS))
def test_successions_of_any_bytes(data: bytes) -> None:
    found = attempt(lambda: succession.follow(data, KEY.public, "x"))
    expected = [key.public for key in KEYS[1:4]]
    assert found is None or found == expected[: len(found)]


@FEWER
@given(st.lists(st.sampled_from(EDGES), max_size=8))
def test_links_are_followed_in_order_from_the_trusted_key(
    edges: list[tuple[int, int]],
) -> None:
    keys = [0]
    for old, new in edges:
        if old == keys[-1]:
            keys.append(new)
    data = b"".join(link(*edge) for edge in edges)
    found = succession.follow(data, KEYS[0].public, "x")
    assert found == [KEYS[number].public for number in keys[1:]]


@FEWER
@given(
    st.binary(max_size=64) | mutated(json.dumps(payload_of(LINKS.split(b"\n")[0])).encode())
)
def test_links_that_are_signed_and_say_anything(payload: bytes) -> None:
    line = bundle.sign(payload, KEY) + b"\n"
    found = attempt(lambda: succession.follow(line, KEY.public, "x"))
    assert found is None or len(found) == 1


@FEWER
@given(altered(payload_of(LINKS.split(b"\n")[0])))
def test_links_that_are_signed_and_altered(payload: bytes) -> None:
    line = bundle.sign(payload, KEY) + b"\n"
    found = attempt(lambda: succession.follow(line, KEY.public, "x"))
    assert found is None or found == [KEYS[1].public]


@pytest.mark.parametrize("curve", ["secp256k1", "x25519"])
def test_a_link_to_a_key_of_another_kind_is_the_fault_of_the_file(curve: str) -> None:
    """As it is in a trust file: the user has given no such key."""
    kinds = {"secp256k1": ec.generate_private_key(ec.SECP256K1())}
    key = kinds.get(curve) or x25519.X25519PrivateKey.generate()
    text = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    document = payload_of(LINKS.split(b"\n")[0]) | {"predicate": {"key": text.decode()}}
    line = bundle.sign(json.dumps(document).encode(), KEY) + b"\n"
    with pytest.raises(
        FormatError, match=r"^x: line 1: payload: predicate\.key: expected "
    ):
        succession.follow(line, KEY.public, "x")


@example(b"")
@example(b"\n")
@example(LINKS.rstrip(b"\n"))
@example(b"{}\n" + LINKS)
@example(LINKS * 22)
@given(mutated(LINKS))
def test_links_that_a_publisher_can_release_with_are_read_by_users(data: bytes) -> None:
    if attempt(lambda: succession.last_key(data, "x")) is not None:
        succession.follow(data, KEY.public, "x")


def test_no_more_links_are_made_than_are_read(tmp_path: Path) -> None:
    links = tmp_path / "links.jsonl"
    for number in range(64):
        old, new = KEYS[number % 4], KEYS[(number + 1) % 4]
        assert rotate(old, new.public, links) == number + 1
    made = links.read_bytes()
    with pytest.raises(ReleaseKitError):
        rotate(KEYS[0], KEYS[1].public, links)
    assert links.read_bytes() == made
    succession.follow(made, KEY.public, "x")


# The trust file.


def trust_file() -> bytes:
    trust = Trust(path=Path("x"))
    trust.add("acme", KEYS[0].public, require_signature=True)
    trust.add("Other.org", KEYS[1].public)
    trust.add("other.org", KEYS[2].public)
    trust.supersede(KEYS[0].public, KEYS[3].public)
    for name in ("model", "größe"):
        seen = Seen(
            key=KEY.public.hint, release=name, version="1.10", manifest=digest(name)
        )
        trust.see(seen)
    return trust.pack()


TRUST = trust_file()


def check_trust(data: bytes) -> None:
    found = attempt(lambda: trusts.parse(data, Path("x")))
    if found is None:
        return
    check_owners(found)
    assert trusts.parse(found.pack(), Path("x")) == found
    document = json.loads(data)
    for publisher, record in zip(found.publishers, document["publishers"], strict=True):
        assert publisher.name == record["name"]
        assert publisher.require_signature is record["require_signature"]
        pems = [key.pem.decode().strip() for key in publisher.keys]
        assert len(pems) == len(record["keys"])
    assert len(found.seen) == len(document["seen"])


def check_owners(trust: Trust) -> None:
    """Every publisher has a name of their own, and keys of their own."""
    names = [publisher.name.lower() for publisher in trust.publishers]
    assert len(set(names)) == len(names)
    assert all(map(is_publisher, names))
    for publisher in trust.publishers:
        for key in publisher.keys:
            assert trust.owner(key) is publisher


@given(st.binary(max_size=64) | mutated(TRUST))
def test_trust_files_of_any_bytes(data: bytes) -> None:
    check_trust(data)


@given(altered(json.loads(TRUST)))
def test_altered_trust_files(data: bytes) -> None:
    check_trust(data)


PUBLISHERS = st.sampled_from(["acme", "ACME", "a.b-c_d", "", "é"])
NUMBERS = st.integers(0, 3)
VERSIONS = st.sampled_from(["0", "1", "1.0", "1.10", "1.9", "2.0.0.1", "999999999"])
CHANGES = st.lists(
    st.tuples(st.just("add"), PUBLISHERS, NUMBERS)
    | st.tuples(st.just("remove"), PUBLISHERS)
    | st.tuples(
        st.just("supersede"), st.lists(NUMBERS, min_size=1, max_size=3), NUMBERS
    ).filter(lambda made: made[2] not in made[1])
    | st.tuples(st.just("see"), NUMBERS, NAMES, VERSIONS),
    max_size=8,
)


def change(trust: Trust, kind: str, *arguments: Any) -> None:
    match kind, arguments:
        case "add", (name, number):
            trust.add(name, KEYS[number].public)
        case "remove", (name,):
            trust.remove(name)
        case "supersede", (old, new):
            keys = [KEYS[number].public for number in old]
            known = trust.owner(keys[0]) is not None
            for key in keys:
                trust.supersede(key, KEYS[new].public)
            assert not known or trust.owner(KEYS[new].public) is not None
        case "see", (number, name, version):
            trust.see(
                Seen(
                    key=KEYS[number].public.fingerprint,
                    release=name,
                    version=version,
                    manifest=digest(version),
                )
            )


@example([("add", "acme", 0), ("add", "other", 1), ("supersede", [0], 1)])
@given(CHANGES)
def test_trust_survives_packing_whatever_was_done(changes: list[tuple[Any, ...]]) -> None:
    trust = Trust(path=Path("x"))
    for made in changes:
        attempt(partial(change, trust, *made), "")
    assert trusts.parse(trust.pack(), Path("x")) == trust
    check_owners(trust)


# Keys.


def pem(label: str, der: bytes) -> bytes:
    text = base64.encodebytes(der)
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (
        label.encode(),
        text,
        label.encode(),
    )


SCALAR = ec.derive_private_key(12345, ec.SECP256R1())
PUBLIC_DER = SCALAR.public_key().public_bytes(
    Encoding.DER, PublicFormat.SubjectPublicKeyInfo
)
PRIVATE_DER = {
    "PRIVATE KEY": SCALAR.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
    "EC PRIVATE KEY": SCALAR.private_bytes(
        Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    ),
    "ENCRYPTED PRIVATE KEY": SCALAR.private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    ),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "x.pem"


def check_public(data: bytes) -> None:
    found = attempt(lambda: PublicKey.parse(data, "x"))
    if found is None:
        return
    assert found.curve in ("P-256", "P-384", "P-521")
    assert PublicKey.parse(found.pem, "x") == found
    lines = found.pem.decode().split()
    der = base64.b64decode("".join(lines[3:-3]))
    assert hashlib.sha256(der).hexdigest() == found.fingerprint
    assert not found.verifies(b"", b"message")


def check_private(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    found = attempt(lambda: PrivateKey.load(path, lambda _: b"secret"), f"{path}: ")
    if found is not None:
        assert found.public.verifies(found.sign(b"message"), b"message")
        path.write_bytes(found.pem(None))
        assert PrivateKey.load(path).public == found.public


@given(
    st.binary(max_size=64)
    | mutated(KEY.public.pem, pem("PUBLIC KEY", PUBLIC_DER))
    | mutated(PUBLIC_DER).map(lambda der: pem("PUBLIC KEY", der))
)
def test_public_keys_of_any_bytes(data: bytes) -> None:
    check_public(data)


@FEWER
@pytest.mark.parametrize("label", PRIVATE_DER)
@given(data=st.data())
def test_private_keys_of_any_bytes(path: Path, label: str, data: st.DataObject) -> None:
    der = PRIVATE_DER[label]
    mutants = mutated(pem(label, der)) | mutated(der).map(lambda der: pem(label, der))
    check_private(path, data.draw(mutants | st.binary(max_size=64)))


@FEWER
@given(
    label=st.sampled_from(["RSA", "DSA", "EC", "OPENSSH", "ENCRYPTED", "X", ""]),
    der=mutated(*PRIVATE_DER.values()),
)
def test_private_keys_under_other_labels(path: Path, label: str, der: bytes) -> None:
    check_private(path, pem(f"{label} PRIVATE KEY".strip(), der))


# Certificates.

ROOT, MIDDLE, SIGNER = private(11), private(12), private(13)
#: Certificates that hold what they should not; a warning is not what refuses them.
QUIET = pytest.mark.filterwarnings(
    "ignore::cryptography.utils.CryptographyDeprecationWarning"
)


Extensions = dict[x509.ObjectIdentifier, bytes]
CRITICAL = {ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE}


def certificate(
    name: str,
    number: int,
    issuer: str,
    by: int,
    *,
    ca: bool,
    others: Extensions | None = None,
) -> x509.Certificate:
    """A certificate as people's authorities make them, or with other extensions."""

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    key = ec.derive_private_key(number, ec.SECP256R1()).public_key()
    authority = ec.derive_private_key(by, ec.SECP256R1())
    began = datetime(2026, 1, 1, tzinfo=UTC)
    usage = x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
    usual: list[x509.ExtensionType] = [
        x509.BasicConstraints(ca=ca, path_length=None),
        usage,
        x509.SubjectKeyIdentifier.from_public_key(key),
        x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()),
        x509.SubjectAlternativeName([x509.RFC822Name("a@example.org")]),
    ]
    held = {extension.oid: extension for extension in usual}
    for oid, value in (others or {}).items():
        held[oid] = x509.UnrecognizedExtension(oid, value)
    made = x509.CertificateBuilder(
        issuer_name=named(issuer),
        subject_name=named(name),
        public_key=key,
        serial_number=number,
        not_valid_before=began,
        not_valid_after=began + timedelta(days=3650),
    )
    for oid, extension in held.items():
        made = made.add_extension(extension, critical=oid in CRITICAL)
    return made.sign(authority, hashes.SHA256(), ecdsa_deterministic=True)


ANCHOR = certificate("root", 11, "root", 11, ca=True)
CHAIN = [
    made.public_bytes(Encoding.DER)
    for made in (
        certificate("signer", 13, "middle", 12, ca=False),
        certificate("middle", 12, "root", 11, ca=True),
    )
]
#: Of somebody else's, under the same names.
FORGED = [
    made.public_bytes(Encoding.DER)
    for made in (
        certificate("signer", 14, "middle", 15, ca=False),
        certificate("middle", 15, "root", 16, ca=True),
        certificate("root", 16, "root", 16, ca=True),
    )
]


def check_chain(certificates: list[bytes], anchors: list[x509.Certificate]) -> None:
    found = attempt(lambda: chains.key_of(certificates, anchors, "x"))
    assert found is None or found == SIGNER.public


def test_the_chain_that_is_mutated_is_sound() -> None:
    assert chains.key_of(CHAIN, [ANCHOR], "x") == SIGNER.public


@QUIET
@example(signer=CHAIN[0].replace(b"\2\1\2", b"\2\1\7"))  # version 8
@example(signer=CHAIN[0].replace(b"\x81\ra@", b"\xa3\ra@"))  # an address in X.400
@given(signer=mutated(CHAIN[0]) | st.binary(max_size=64))
def test_mutated_certificates_of_signers(signer: bytes) -> None:
    check_chain([signer, CHAIN[1]], [ANCHOR])


@QUIET
@given(middle=mutated(CHAIN[1]) | st.binary(max_size=64))
def test_mutated_certificates_of_authorities(middle: bytes) -> None:
    check_chain([CHAIN[0], middle], [ANCHOR])


@FEWER
@given(st.lists(st.sampled_from([*CHAIN, *FORGED]), min_size=1, max_size=16))
def test_any_certificates_in_any_order(certificates: list[bytes]) -> None:
    check_chain(certificates, [ANCHOR])


USAGES = [ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.SERVER_AUTH]
EXTENSIONS = {
    extension.oid: extension.public_bytes()
    for extension in (
        x509.BasicConstraints(ca=True, path_length=1),
        x509.ExtendedKeyUsage(USAGES),
        x509.SubjectAlternativeName([x509.DNSName("a.b"), x509.RFC822Name("a@b.c")]),
        x509.IssuerAlternativeName([x509.UniformResourceIdentifier("https://a.b")]),
        x509.NameConstraints([x509.DNSName("a.b")], [x509.RFC822Name("b.c")]),
        x509.CertificatePolicies([x509.PolicyInformation(USAGES[0], ["https://a.b"])]),
        x509.AuthorityKeyIdentifier(b"key", None, None),
        x509.PolicyConstraints(1, 0),
        x509.InhibitAnyPolicy(1),
        x509.TLSFeature([x509.TLSFeatureType.status_request]),
    )
} | {ExtensionOID.KEY_USAGE: b"\3\2\7\x80"}


@st.composite
def extensions(draw: st.DrawFn) -> Extensions:
    """Extensions of certificates, most of them mutated."""
    chosen = draw(st.lists(st.sampled_from(list(EXTENSIONS)), max_size=3))
    return {oid: draw(mutated(EXTENSIONS[oid]) | st.binary(max_size=12)) for oid in chosen}


@FEWER
@QUIET
@example(signer={ExtensionOID.TLS_FEATURE: b"0\3\2\1\4"}, middle={})  # there is no fourth
@given(signer=extensions(), middle=extensions())
def test_certificates_with_extensions_of_any_bytes(
    signer: Extensions, middle: Extensions
) -> None:
    made = (
        certificate("signer", 13, "middle", 12, ca=False, others=signer),
        certificate("middle", 12, "root", 11, ca=True, others=middle),
    )
    check_chain([found.public_bytes(Encoding.DER) for found in made], [ANCHOR])


@QUIET
@FEWER
@example(data=pem("CERTIFICATE", CHAIN[1].replace(b"\2\1\2", b"\2\1\7")))
@given(
    st.binary(max_size=64)
    | mutated(ANCHOR.public_bytes(Encoding.PEM))
    | mutated(ANCHOR.public_bytes(Encoding.DER)).map(lambda der: pem("CERTIFICATE", der))
)
def test_trusted_certificates_of_any_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    anchors = attempt(lambda: chains.load_roots(path), f"{path}: ")
    if anchors is not None:
        assert anchors
        check_chain(CHAIN, anchors)


# Versions and times.


def numbers_of(text: str) -> list[int] | None:
    """The numbers of a version, four of them; None if it is none."""
    parts = text.split(".")
    for part in parts:
        digits = part.isascii() and part.isdigit() and len(part) < 10
        if not digits or str(int(part)) != part:
            return None
    return [*map(int, parts), 0, 0, 0, 0][:4] if len(parts) < 5 else None


VERSION_LIKE = (
    st.lists(st.integers(-1, 12) | st.integers(0, 10**10), max_size=5).map(
        lambda numbers: ".".join(map(str, numbers))
    )
    | st.text("01.9-v \n٣²", max_size=12)
    | st.text(max_size=8)
)


@given(VERSION_LIKE, VERSION_LIKE)
def test_versions_are_compared_as_their_numbers(one: str, other: str) -> None:
    numbers, others = numbers_of(one), numbers_of(other)
    assert is_version(one) == (numbers is not None)
    if numbers is not None and others is not None:
        assert (order(one) < order(other)) == (numbers < others)
        assert (order(one) == order(other)) == (numbers == others)


@given(
    st.integers(-1, 10**13).map(str) | st.text("0123456789-. ٣²", max_size=14) | st.text()
)
def test_a_time_is_seconds_or_refused(text: str) -> None:
    try:
        seconds = read_epoch(text)
    except UsageError as error:
        message = str(error)
        assert message.startswith("SOURCE_DATE_EPOCH: ")
        assert message.isprintable()
        assert not (text.isascii() and text.isdigit() and int(text) < 253_402_300_800)
        return
    if not text:
        assert seconds is None
        return
    assert seconds == int(text)
    made = pack_provenance({}, [], parameters={}, identities={}, builder={}, epoch=seconds)
    written = json.loads(made)["predicate"]["runDetails"]["metadata"]["startedOn"]
    assert datetime.fromisoformat(written).timestamp() == seconds


# Lists and indices.

PATHS = st.lists(
    st.tuples(DIGESTS, st.sampled_from(["  ", " *", " ", "\t"]), NAMES), max_size=4
)


@example(lines=[(digest(""), " ", " a")], end="\n")
@given(lines=PATHS, end=st.sampled_from(["\n", "\n", "\r\n", ""]))
def test_sums_of_any_lines(lines: list[tuple[str, str, str]], end: str) -> None:
    text = "".join(f"{digest}{mark}{name}{end}" for digest, mark, name in lines)
    found = attempt(lambda: parse_sums(text.encode(), "x"))
    if found is not None:
        check_names(list(found))
        assert [(name, d) for name, d in found.items()] == [
            (line[66:], line[:64]) for line in text.split("\n")[:-1]
        ]
        assert parse_sums(format_sums(found), "x") == found


INDEX = {
    "metadata": {"total_size": 20},
    "weight_map": {
        "a": "one.safetensors",
        "b": "one.safetensors",
        "c": "more/two.safetensors",
    },
}


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of a model in two files."""
    root = tmp_path_factory.mktemp("indexed")
    (root / "more").mkdir()
    one = {name: ("U8", [2], b"ab") for name in ("a", "b")}
    (root / "one.safetensors").write_bytes(safetensors_bytes(one))
    two = {"c": ("U8", [1], b"c")}
    (root / "more" / "two.safetensors").write_bytes(safetensors_bytes(two))
    return root / "model.safetensors.index.json"


@FEWER
@given(altered(INDEX) | mutated(json.dumps(INDEX).encode()) | st.binary(max_size=64))
def test_indices_of_any_bytes(indexed: Path, data: bytes) -> None:
    indexed.write_bytes(data)
    found = attempt(lambda: find(indexed), f"{indexed}: ")
    if found is None:
        return
    assert found.weight_map == json.loads(data)["weight_map"]
    check_names(list(found.files))
    checkpoint = attempt(lambda: SafetensorsCheckpoint.open(found), f"{indexed}: ")
    if checkpoint is not None:
        assert checkpoint.homes == found.weight_map
        checkpoint.close()


# A whole release, signed in every way.


class Signed:
    """A small release, and for each way to trust it, its signature and what to ask."""

    def __init__(self, root: Path) -> None:
        base, target = small_pair()
        model_folder(root / "target", target)
        (root / "target" / "config.json").write_bytes(b"{}")
        self.folder = root / "release"
        links = root / "links.jsonl"
        links.write_bytes(link(0, 1) + link(1, 2))
        make_delta(
            model_folder(root / "base", base),
            root / "target",
            self.folder,
            codec=Ulp(chunk=1024),
            shard_nbytes=1,
            sign_key=KEYS[2],
            succession=links,
        )
        self.manifest = (self.folder / "release.json").read_bytes()
        self.sums = (self.folder / "SHA256SUMS").read_bytes()
        self.signature = (self.folder / "model.sig").read_bytes()
        self.files = statement.parse(bundle.parse(self.signature, "x").payload, "x").files
        for number in (0, 2):
            (root / f"{number}.pem").write_bytes(KEYS[number].public.pem)
        (root / "roots.pem").write_bytes(ANCHOR.public_bytes(Encoding.PEM))
        by_signer = bundle.sign(Statement(name="x", files=self.files).pack(), SIGNER)
        certified = with_certificates(by_signer, CHAIN)
        #: The policy, the signature that it takes, and the key of that.
        self.ways = {
            "key": (Policy(public_key=root / "2.pem"), self.signature, KEYS[2]),
            "succession": (Policy(public_key=root / "0.pem"), self.signature, KEYS[2]),
            "certificates": (Policy(certificates=root / "roots.pem"), certified, SIGNER),
            "trust file": (Policy(require_signature=True), self.signature, KEYS[2]),
            "nobody": (Policy(), self.signature, None),
        }

    def trust(self, way: str) -> None:
        """Have this user trust what the way takes."""
        trust = trusts.default_path()
        trust.parent.mkdir(exist_ok=True)
        known = Trust(path=trust)
        if way == "trust file":
            known.add("acme", KEYS[2].public)
        trust.write_bytes(known.pack())

    @contextmanager
    def replaced(self, name: str, data: bytes) -> Iterator[None]:
        """One file with other content, for a moment."""
        path = self.folder / name
        before = path.read_bytes()
        path.write_bytes(data)
        try:
            yield
        finally:
            path.write_bytes(before)

    def check(self, way: str) -> None:
        """The release is refused, or found to be what was signed."""
        policy, _, key = self.ways[way]
        start = f"{self.folder}"
        found = attempt(lambda: authenticate(self.folder, policy), start)
        opened = attempt(lambda: open_trusted(self.folder, policy), start)
        if opened is None:
            return
        assert found is not None
        release, again = opened
        with release:
            assert release.manifest == parse_manifest(self.manifest)
        assert again.key == found.key == (key.public if key else None)
        if key is not None:
            assert found.status is Status.SIGNED
            assert found.files == self.files
            for name in ("release.json", "SHA256SUMS"):
                data = (self.folder / name).read_bytes()
                assert hashlib.sha256(data).hexdigest() == self.files[name]


WAYS = ["key", "succession", "certificates", "trust file", "nobody"]
SMALL = ["model.sig", "release.json", "SHA256SUMS", "key-succession.jsonl"]


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    return Signed(tmp_path_factory.mktemp("signed"))


@pytest.mark.parametrize("way", WAYS)
def test_the_release_that_is_mutated_is_sound(signed: Signed, way: str) -> None:
    policy, signature, key = signed.ways[way]
    signed.trust(way)
    with signed.replaced("model.sig", signature):
        release, found = open_trusted(signed.folder, policy)
        release.close()
        assert found.key == (key.public if key else None)
        signed.check(way)


@QUIET
@FEWER
@pytest.mark.parametrize("name", SMALL)
@given(way=st.sampled_from(WAYS), data=st.data())
def test_mutated_files_of_a_signed_release(
    signed: Signed, name: str, way: str, data: st.DataObject
) -> None:
    signed.trust(way)
    with signed.replaced("model.sig", signed.ways[way][1]):
        valid = (signed.folder / name).read_bytes()
        mutants = mutated(valid)
        if name in ("model.sig", "release.json"):
            mutants |= altered(json.loads(valid))
        with signed.replaced(name, data.draw(mutants)):
            signed.check(way)


@FEWER
@given(data=st.data())
def test_what_a_publisher_signs_who_means_harm(signed: Signed, data: st.DataObject) -> None:
    """All digests and the signature are right, content is not."""
    document = data.draw(altered(json.loads(signed.manifest)))
    files = dict(signed.files) | {"release.json": hashlib.sha256(document).hexdigest()}
    listed = format_sums({name: d for name, d in files.items() if name != "SHA256SUMS"})
    files["SHA256SUMS"] = hashlib.sha256(listed).hexdigest()
    signature = bundle.sign(Statement(name="x", files=files).pack(), KEYS[2])
    with (
        signed.replaced("release.json", document),
        signed.replaced("SHA256SUMS", listed),
        signed.replaced("model.sig", signature),
    ):
        policy = signed.ways["key"][0]
        opened = attempt(lambda: open_trusted(signed.folder, policy), "")
        if opened is None:
            return
        release, found = opened
        with release:
            assert found.files == files
            assert parse_manifest(release.manifest.pack()) == release.manifest
            for name in release.manifest.stored:
                assert safe_path(name, "x") in files


@FEWER
@given(payload=altered(json.loads(PAYLOAD)) | mutated(PAYLOAD) | st.binary(max_size=64))
def test_any_payload_that_is_signed(signed: Signed, payload: bytes) -> None:
    with signed.replaced("model.sig", bundle.sign(payload, KEYS[2])):
        policy = signed.ways["key"][0]
        found = attempt(lambda: authenticate(signed.folder, policy), f"{signed.folder}")
        if found is not None:
            assert found.files == statement.parse(payload, "x").files
            check_names(list(found.files))


HUGE = 1 << 36  # bytes, of which the disk holds none


@pytest.mark.parametrize("name", [*SMALL, "trust.json", "x.pub.pem", "x.pem", "roots.pem"])
def test_files_of_any_size_are_refused_within_little_memory(
    signed: Signed, tmp_path: Path, name: str
) -> None:
    folder = Path(shutil.copytree(signed.folder, tmp_path / "release"))
    huge = folder / name if name in SMALL else tmp_path / name
    huge.touch()
    os.truncate(huge, HUGE)
    reads: dict[str, Callable[[], object]] = {
        "trust.json": lambda: trusts.load(huge),
        "x.pub.pem": lambda: PublicKey.load(huge),
        "x.pem": lambda: PrivateKey.load(huge),
        "roots.pem": lambda: chains.load_roots(huge),
    }
    policy = signed.ways["succession"][0]
    read = reads.get(name, lambda: open_trusted(folder, policy))
    assert attempt(read, f"{huge}: ") is None
    assert peak_nbytes(read) < 80 << 20
