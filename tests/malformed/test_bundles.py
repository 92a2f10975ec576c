"""Signatures that must be refused: one case a fault, with the words it meets.

Bundles, the statements in them, the files that lead from key to key, and trust files. All
are made without the code that is under test.
"""

from __future__ import annotations

import base64
import copy
import datetime
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificateIssuerPrivateKeyTypes,
    CertificatePublicKeyTypes,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID, ObjectIdentifier

from releasekit import trust as trusts
from releasekit.authenticity import Policy, authenticate
from releasekit.errors import FormatError, SignatureError, UsageError
from releasekit.signing import bundle as bundles
from releasekit.signing import chains, succession
from releasekit.signing import statement as statements
from releasekit.signing.keys import PublicKey

Document = dict[str, Any]

IN_TOTO = "application/vnd.in-toto+json"
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
STATEMENT = "https://in-toto.io/Statement/v1"
OMS = "https://model_signing/signature/v1.0"
LINK = "urn:releasekit:key-succession:v1"
KEY: Final = ec.derive_private_key(1, ec.SECP256R1())
NEXT: Final = ec.derive_private_key(2, ec.SECP256R1())
HEX = "64 lowercase hexadecimal digits"
DIGESTS = {"a": "0a" * 32, "b": "0b" * 32}
ROOT_DIGEST = hashlib.sha256(b"\x0a" * 32 + b"\x0b" * 32).hexdigest()
_GONE: Final = object()
_NONE: Final[Mapping[str, object]] = {}


def pem(key: ec.EllipticCurvePrivateKey) -> str:
    """The public half of a key."""
    public = key.public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def fingerprint(key: ec.EllipticCurvePrivateKey) -> str:
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def hint(key: ec.EllipticCurvePrivateKey) -> str:
    return hashlib.sha256(pem(key).encode()).hexdigest()


def changed(document: Document, changes: Mapping[str, object]) -> Document:
    """A document with the fields at some paths set, or taken out if they are `_GONE`."""
    made = copy.deepcopy(document)
    for path, value in changes.items():
        *parents, last = [int(n) if n.isdigit() else n for n in path.split("/")]
        place: Any = made
        for name in parents:
            place = place[name]
        if value is _GONE:
            del place[last]
        else:
            place[last] = value
    return made


def packed(document: object) -> bytes:
    return json.dumps(document).encode()


def enveloped(
    payload: bytes,
    key: ec.EllipticCurvePrivateKey,
    changes: Mapping[str, object] = _NONE,
    *,
    kind: str = IN_TOTO,
) -> Document:
    """A bundle over `payload` as a P-256 key signs it, with some fields changed."""
    message = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    signature = key.sign(message, ec.ECDSA(SHA256()))
    good: Document = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": hint(key)}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": kind,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return changed(good, changes)


def stated(digests: Mapping[str, str], changes: Mapping[str, object] = _NONE) -> Document:
    """A statement over files by their SHA-256, with some fields changed."""
    names = sorted(digests)
    root = hashlib.sha256(b"".join(bytes.fromhex(digests[n]) for n in names)).hexdigest()
    good: Document = {
        "_type": STATEMENT,
        "subject": [{"name": "tune", "digest": {"sha256": root}}],
        "predicateType": OMS,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": ["model.sig"],
            },
            "resources": [
                {"name": name, "algorithm": "sha256", "digest": digests[name]}
                for name in names
            ],
        },
    }
    return changed(good, changes)


def link(
    old: ec.EllipticCurvePrivateKey,
    new: ec.EllipticCurvePrivateKey,
    changes: Mapping[str, object] = _NONE,
) -> bytes:
    """A line by which `old` names `new` its successor, with some fields changed."""
    good: Document = {
        "_type": STATEMENT,
        "subject": [{"name": "signing key", "digest": {"sha256": fingerprint(new)}}],
        "predicateType": LINK,
        "predicate": {"key": pem(new)},
    }
    return packed(enveloped(packed(changed(good, changes)), old)) + b"\n"


TRUST: Final[Document] = {
    "format": "releasekit-trust/1",
    "publishers": [
        {
            "name": "acme",
            "require_signature": True,
            "keys": [pem(KEY)],
            "superseded": [],
        }
    ],
    "seen": [
        {
            "key": fingerprint(KEY),
            "release": "tune",
            "version": "1.0",
            "manifest": "0c" * 32,
        }
    ],
}


def read_bundle(data: bytes) -> object:
    return bundles.parse(data, "model.sig")


def read_statement(data: bytes) -> object:
    return statements.parse(data, "model.sig")


def read_links(data: bytes) -> object:
    return succession.follow(data, PublicKey(KEY.public_key()), "keys.jsonl")


def read_trust(data: bytes) -> object:
    return trusts.parse(data, Path("trust.json"))


def a_link_with(payload: bytes) -> bytes:
    return packed(enveloped(payload, KEY)) + b"\n"


def refusal(read: Callable[[bytes], object], data: bytes) -> str:
    with pytest.raises(FormatError) as caught:
        read(data)
    assert str(caught.value).isprintable()
    return str(caught.value)


# What is no JSON, or JSON that two parsers may read differently: the same in all of them.

DOCUMENTS: Final = {
    "bundle": (read_bundle, "model.sig"),
    "statement": (read_statement, "model.sig: payload"),
    "link": (lambda data: read_links(data + b"\n"), "keys.jsonl: line 1"),
    "link_payload": (
        lambda data: read_links(a_link_with(data)),
        "keys.jsonl: line 1: payload",
    ),
    "trust_file": (read_trust, "trust.json"),
}
JSON = [
    ("empty", b"", "not valid JSON: Expecting value at line 1, column 1 (byte 0)"),
    ("not_utf8", b'{"\xff":1}', "not UTF-8 at byte 2"),
    (
        "byte_order_mark",
        b"\xef\xbb\xbf{}",
        "begins with a byte order mark; expected none",
    ),
    (
        "trailing_garbage",
        b"{} {}",
        "not valid JSON: Extra data at line 1, column 4 (byte 3)",
    ),
    (
        "cut_short",
        b'{"mediaType":"appl',
        "not valid JSON: Unterminated string starting at line 1, column 14 (byte 13)",
    ),
    ("nan", b'{"seen":NaN}', "expected finite numbers, found NaN"),
    ("infinity", b'{"seen":-Infinity}', "expected finite numbers, found -Infinity"),
    ("minus_zero", b'{"seen":-0}', "expected 0, found -0"),
    (
        "number_of_31_digits",
        b'{"seen":1%s}' % (b"0" * 30),
        "expected integers of at most 20 digits, found 10000000000000000000… of 31",
    ),
    (
        "lone_surrogate",
        rb'{"_type":"\ud800"}',
        r'a string holds "\ud800", half of a surrogate pair',
    ),
    ("key_twice", b'{"a":1,"b":2,"a":1}', 'key "a" appears twice'),
    ("key_twice_by_an_escape", rb'{"a":1,"\u0061":1}', 'key "a" appears twice'),
    ("key_twice_inside", b'{"a":[{"b":{},"b":{}}]}', 'key "b" appears twice'),
    ("nested_100k", b'{"a":' + b"[" * 100_000, "nested deeper than 64 levels"),
    ("root_an_array", b"[]", "expected an object, found an array of 0"),
    ("root_null", b"null", "expected an object, found null"),
    ("root_a_string", b'"x"', 'expected an object, found "x"'),
]


@pytest.mark.parametrize("document", DOCUMENTS)
@pytest.mark.parametrize(
    ("data", "message"),
    [pytest.param(data, message, id=fault) for fault, data, message in JSON],
)
def test_no_json(document: str, data: bytes, message: str) -> None:
    read, where = DOCUMENTS[document]
    assert refusal(read, data) == f"{where}: {message}"


@pytest.mark.parametrize("document", ["bundle", "statement", "trust_file"])
def test_huge_counts(document: str) -> None:
    read, where = DOCUMENTS[document]
    data = b'{"a":[' + b"0," * 10_000_000 + b"0]}"
    assert refusal(read, data) == (
        f"{where}: expected at most 6,000,000 values, found about 10,000,003"
    )


# Bundles.

SIGSTORE = (
    "verificationMaterial: expected a publicKey, or an x509CertificateChain; a signature "
    "by a Sigstore identity is not supported: verify it with the model_signing tool"
)
CHAIN = {"certificates": [{"rawBytes": "AAAA"}]}
ENTRY = {"logIndex": "1", "logId": {"keyId": "AAAA"}}
BUNDLES: list[tuple[str, dict[str, object], str]] = [
    (
        "media_type_of_0_2",
        {"mediaType": "application/vnd.dev.sigstore.bundle+json;version=0.2"},
        f'mediaType: expected one of "{MEDIA_TYPE}", found '
        '"application/vnd.dev.sigstore.bundle+json;version=0.2"',
    ),
    ("media_type_missing", {"mediaType": _GONE}, 'missing field "mediaType"'),
    (
        "media_type_null",
        {"mediaType": None},
        f'mediaType: expected one of "{MEDIA_TYPE}", found null',
    ),
    ("field_unknown", {"messageSignature": {}}, 'unknown field "messageSignature"'),
    (
        "material_missing",
        {"verificationMaterial": _GONE},
        'missing field "verificationMaterial"',
    ),
    (
        "material_a_string",
        {"verificationMaterial": "x"},
        'verificationMaterial: expected an object, found "x"',
    ),
    (
        "neither_key_nor_certificates",
        {"verificationMaterial/publicKey": _GONE},
        SIGSTORE,
    ),
    (
        "key_and_certificates",
        {"verificationMaterial/x509CertificateChain": CHAIN},
        SIGSTORE,
    ),
    # What `model_signing sign sigstore` writes: the certificate of an identity alone.
    (
        "certificate_of_a_sigstore_identity",
        {"verificationMaterial": {"certificate": {"rawBytes": "AAAA"}, "tlogEntries": []}},
        SIGSTORE,
    ),
    (
        "material_field_unknown",
        {"verificationMaterial/key": pem(KEY)},
        'verificationMaterial: unknown field "key"',
    ),
    (
        "key_field_unknown",
        {"verificationMaterial/publicKey/rawBytes": "AAAA"},
        'verificationMaterial.publicKey: unknown field "rawBytes"',
    ),
    (
        "hint_a_number",
        {"verificationMaterial/publicKey/hint": 1},
        "verificationMaterial.publicKey.hint: expected a string, found 1",
    ),
    (
        "hint_null",
        {"verificationMaterial/publicKey/hint": None},
        "verificationMaterial.publicKey.hint: expected a string, found null",
    ),
    (
        "log_null",
        {"verificationMaterial/tlogEntries": None},
        "verificationMaterial.tlogEntries: expected an array, found null",
    ),
    (
        "log_an_entry_alone",
        {"verificationMaterial/tlogEntries": ENTRY},
        "verificationMaterial.tlogEntries: expected an array, found an object",
    ),
    (
        "log_of_strings",
        {"verificationMaterial/tlogEntries": [ENTRY, "x"]},
        'verificationMaterial.tlogEntries[1]: expected an object, found "x"',
    ),
    (
        "no_certificates",
        {"verificationMaterial": {"x509CertificateChain": {"certificates": []}}},
        "verificationMaterial.x509CertificateChain.certificates: expected 1 to 8, found 0",
    ),
    (
        "seventeen_certificates",
        {
            "verificationMaterial": {
                "x509CertificateChain": {"certificates": [{"rawBytes": "AAAA"}] * 17}
            }
        },
        "verificationMaterial.x509CertificateChain.certificates: expected 1 to 8, found 17",
    ),
    (
        "certificate_not_base64",
        {
            "verificationMaterial": {
                "x509CertificateChain": {"certificates": [{"rawBytes": "-----BEGIN"}]}
            }
        },
        "verificationMaterial.x509CertificateChain.certificates[0].rawBytes: expected "
        'base64, found "-----BEGIN"',
    ),
    (
        "certificate_field_unknown",
        {
            "verificationMaterial": {
                "x509CertificateChain": {"certificates": [{"rawBytes": "AAAA", "x": 1}]}
            }
        },
        'verificationMaterial.x509CertificateChain.certificates[0]: unknown field "x"',
    ),
    ("envelope_missing", {"dsseEnvelope": _GONE}, 'missing field "dsseEnvelope"'),
    (
        "envelope_null",
        {"dsseEnvelope": None},
        "dsseEnvelope: expected an object, found null",
    ),
    (
        "envelope_field_unknown",
        {"dsseEnvelope/signature": "AAAA"},
        'dsseEnvelope: unknown field "signature"',
    ),
    (
        "payload_type_plain_json",
        {"dsseEnvelope/payloadType": "application/json"},
        f'dsseEnvelope.payloadType: expected one of "{IN_TOTO}", found "application/json"',
    ),
    (
        "payload_type_in_capitals",
        {"dsseEnvelope/payloadType": IN_TOTO.upper()},
        f'dsseEnvelope.payloadType: expected one of "{IN_TOTO}", found "{IN_TOTO.upper()}"',
    ),
    (
        "payload_type_missing",
        {"dsseEnvelope/payloadType": _GONE},
        'dsseEnvelope: missing field "payloadType"',
    ),
    (
        "payload_an_object",
        {"dsseEnvelope/payload": {}},
        "dsseEnvelope.payload: expected a string, found an object",
    ),
    (
        "payload_not_base64",
        {"dsseEnvelope/payload": "{}"},
        'dsseEnvelope.payload: expected base64, found "{}"',
    ),
    (
        "payload_in_base64_for_urls",
        {"dsseEnvelope/payload": "-_-_"},
        'dsseEnvelope.payload: expected base64, found "-_-_"',
    ),
    (
        "payload_without_padding",
        {"dsseEnvelope/payload": "AA"},
        'dsseEnvelope.payload: expected base64, found "AA"',
    ),
    (
        "payload_with_more_padding",
        {"dsseEnvelope/payload": "AAAA===="},
        'dsseEnvelope.payload: expected base64, found "AAAA===="',
    ),
    (
        "payload_over_two_lines",
        {"dsseEnvelope/payload": "AAAA\nAAAA"},
        r'dsseEnvelope.payload: expected base64, found "AAAA\nAAAA"',
    ),
    (
        "payload_beyond_ascii",
        {"dsseEnvelope/payload": "äöüß"},
        'dsseEnvelope.payload: expected base64, found "äöüß"',
    ),
    # "AB==" and "AA==" are the same byte to a decoder that lets stray bits pass.
    (
        "payload_with_stray_bits",
        {"dsseEnvelope/payload": "AB=="},
        'dsseEnvelope.payload: expected base64, found "AB=="',
    ),
    (
        "signature_with_stray_bits",
        {"dsseEnvelope/signatures/0/sig": "AAF="},
        'dsseEnvelope.signatures[0].sig: expected base64, found "AAF="',
    ),
    (
        "signature_in_hexadecimal",
        {"dsseEnvelope/signatures/0/sig": "0" * 70 + "x"},
        f'dsseEnvelope.signatures[0].sig: expected base64, found "{"0" * 59}…"',
    ),
    (
        "signature_missing",
        {"dsseEnvelope/signatures/0/sig": _GONE},
        'dsseEnvelope.signatures[0]: missing field "sig"',
    ),
    (
        "key_id_a_number",
        {"dsseEnvelope/signatures/0/keyid": 0},
        "dsseEnvelope.signatures[0].keyid: expected a string, found 0",
    ),
    (
        "signature_field_unknown",
        {"dsseEnvelope/signatures/0/cert": "AAAA"},
        'dsseEnvelope.signatures[0]: unknown field "cert"',
    ),
    (
        "zero_signatures",
        {"dsseEnvelope/signatures": []},
        "dsseEnvelope.signatures: expected one, found 0",
    ),
    (
        "two_signatures",
        {"dsseEnvelope/signatures": [{"sig": "AAAA"}, {"sig": "AAAA"}]},
        "dsseEnvelope.signatures: expected one, found 2",
    ),
    (
        "10k_signatures",
        {"dsseEnvelope/signatures": [{"sig": "AAAA"}] * 10_000},
        "dsseEnvelope.signatures: expected one, found 10000",
    ),
    (
        "signatures_an_object",
        {"dsseEnvelope/signatures": {"sig": "AAAA"}},
        "dsseEnvelope.signatures: expected an array, found an object",
    ),
    (
        "signatures_of_strings",
        {"dsseEnvelope/signatures": ["AAAA"]},
        'dsseEnvelope.signatures[0]: expected an object, found "AAAA"',
    ),
]


@pytest.mark.parametrize(
    ("changes", "message"),
    [pytest.param(changes, message, id=fault) for fault, changes, message in BUNDLES],
)
def test_bundles(changes: dict[str, object], message: str) -> None:
    data = packed(enveloped(packed(stated(DIGESTS)), KEY, changes))
    assert refusal(read_bundle, data) == f"model.sig: {message}"


# Statements.


def named(*names: str) -> dict[str, object]:
    """Resources of these names."""
    return {
        "predicate/resources": [
            {"name": name, "algorithm": "sha256", "digest": "00" * 32} for name in names
        ]
    }


STATEMENTS: list[tuple[str, dict[str, object], str]] = [
    (
        "type_of_version_0_1",
        {"_type": "https://in-toto.io/Statement/v0.1"},
        f'_type: expected one of "{STATEMENT}", found "https://in-toto.io/Statement/v0.1"',
    ),
    ("type_missing", {"_type": _GONE}, 'missing field "_type"'),
    (
        "predicate_of_a_succession",
        {"predicateType": LINK},
        f'predicateType: expected one of "{OMS}", found "{LINK}"',
    ),
    (
        "predicate_of_provenance",
        {"predicateType": "https://slsa.dev/provenance/v1"},
        f'predicateType: expected one of "{OMS}", found "https://slsa.dev/provenance/v1"',
    ),
    (
        "predicate_type_an_array",
        {"predicateType": [OMS]},
        f'predicateType: expected one of "{OMS}", found an array of 1',
    ),
    ("field_unknown", {"publisher": "acme"}, 'unknown field "publisher"'),
    ("zero_subjects", {"subject": []}, "subject: expected one, found 0"),
    (
        "two_subjects",
        {"subject": [{"name": "a", "digest": {}}, {"name": "b", "digest": {}}]},
        "subject: expected one, found 2",
    ),
    (
        "subject_an_object",
        {"subject": {}},
        "subject: expected an array, found an object",
    ),
    (
        "subject_without_a_name",
        {"subject/0/name": _GONE},
        'subject[0]: missing field "name"',
    ),
    (
        "subject_field_unknown",
        {"subject/0/uri": "x"},
        'subject[0]: unknown field "uri"',
    ),
    (
        "subject_by_two_digests",
        {"subject/0/digest/sha512": "00" * 64},
        'subject[0].digest: unknown field "sha512"',
    ),
    (
        "subject_by_blake3",
        {"subject/0/digest": {"blake3": "00" * 32}},
        'subject[0].digest: missing field "sha256"',
    ),
    (
        "root_in_capitals",
        {"subject/0/digest/sha256": "AA" * 32},
        f'subject[0].digest.sha256: expected {HEX}, found "{"A" * 59}…"',
    ),
    (
        "root_of_other_digests",
        {"subject/0/digest/sha256": "00" * 32},
        f"subject: expected sha256 {ROOT_DIGEST}, that of the digests listed, found "
        + "00" * 32,
    ),
    (
        "predicate_missing",
        {"predicate": _GONE},
        'missing field "predicate"',
    ),
    (
        "serialization_missing",
        {"predicate/serialization": _GONE},
        'predicate: missing field "serialization"',
    ),
    (
        "method_shards",
        {"predicate/serialization/method": "shards"},
        'predicate.serialization.method: expected one of "files", found "shards"',
    ),
    (
        "method_missing",
        {"predicate/serialization/method": _GONE},
        'predicate.serialization: missing field "method"',
    ),
    (
        "hash_blake3",
        {"predicate/serialization/hash_type": "blake3"},
        'predicate.serialization.hash_type: expected one of "sha256", found "blake3"',
    ),
    (
        "hash_missing",
        {"predicate/serialization/hash_type": _GONE},
        'predicate.serialization: missing field "hash_type"',
    ),
    (
        "resource_by_blake3",
        {"predicate/resources/1/algorithm": "blake3"},
        'predicate.resources[1].algorithm: expected one of "sha256", found "blake3"',
    ),
    (
        "resource_by_sha512",
        {"predicate/resources/0/algorithm": "sha512"},
        'predicate.resources[0].algorithm: expected one of "sha256", found "sha512"',
    ),
    (
        "resource_of_a_shard",
        {"predicate/resources/0/algorithm": "sha256-sharded-1000000"},
        'predicate.resources[0].algorithm: expected one of "sha256", found '
        '"sha256-sharded-1000000"',
    ),
    (
        "resource_without_algorithm",
        {"predicate/resources/0/algorithm": _GONE},
        'predicate.resources[0]: missing field "algorithm"',
    ),
    (
        "resource_digest_short",
        {"predicate/resources/0/digest": "00"},
        f'predicate.resources[0].digest: expected {HEX}, found "00"',
    ),
    (
        "resource_digest_with_a_line_end",
        {"predicate/resources/0/digest": "00" * 32 + "\n"},
        f'predicate.resources[0].digest: expected {HEX}, found "{"0" * 59}…"',
    ),
    (
        "resource_field_unknown",
        {"predicate/resources/0/size": 3},
        'predicate.resources[0]: unknown field "size"',
    ),
    (
        "resource_a_string",
        {"predicate/resources/0": "a"},
        'predicate.resources[0]: expected an object, found "a"',
    ),
    (
        "resources_missing",
        {"predicate/resources": _GONE},
        'predicate: missing field "resources"',
    ),
    (
        "resources_an_object",
        {"predicate/resources": {"a": "00" * 32}},
        "predicate.resources: expected an array, found an object",
    ),
    (
        "resources_empty",
        {"predicate/resources": []},
        "predicate.resources: expected at least one file",
    ),
    (
        "resources_empty_and_all_ignored",
        {"predicate/resources": [], "predicate/serialization/ignore_paths": ["."]},
        "predicate.resources: expected at least one file",
    ),
    ("name_empty", named(""), 'path "" is empty'),
    ("name_climbs", named("../x"), 'path "../x" has a ".." segment'),
    ("name_climbs_inside", named("a/../../x"), 'path "a/../../x" has a ".." segment'),
    ("name_with_a_dot", named("./a"), 'path "./a" has a "." segment'),
    ("name_the_folder_itself", named("."), 'path "." has a "." segment'),
    (
        "name_absolute",
        named("/etc/passwd"),
        'path "/etc/passwd" is absolute; expected one relative to the release',
    ),
    (
        "name_with_backslashes",
        named("..\\x"),
        r'path "..\\x" holds a backslash, which separates folders on Windows',
    ),
    (
        "name_with_nul",
        named("a\0b"),
        r'path "a\u0000b" holds the control character U+0000',
    ),
    (
        "name_with_a_line_end",
        named("a\nb"),
        r'path "a\nb" holds the control character U+000A',
    ),
    (
        "name_written_right_to_left",
        named("a\u202etxt.exe"),
        r'path "a\u202etxt.exe" holds the control character U+202E',
    ),
    (
        "name_with_a_colon",
        named("C:x"),
        'path "C:x" holds a colon, which names a drive or a stream on Windows',
    ),
    (
        "name_of_a_stream",
        named("a:b"),
        'path "a:b" holds a colon, which names a drive or a stream on Windows',
    ),
    (
        "name_of_a_device",
        named("a/NUL.txt"),
        'path "a/NUL.txt" has a segment that is a device on Windows: "NUL.txt"',
    ),
    ("name_with_an_empty_segment", named("a//b"), 'path "a//b" has an empty segment'),
    ("name_of_a_folder", named("a/"), 'path "a/" has an empty segment'),
    (
        "name_that_ends_in_a_dot",
        named("a."),
        'path "a." has a segment that ends in a dot or a space: "a."',
    ),
    (
        "name_too_long",
        named("a" * 256),
        f'path "{"a" * 199}…" has a segment longer than 255 bytes',
    ),
    ("name_twice", named("a", "b", "a"), 'path "a" appears twice'),
    (
        "names_equal_but_for_case",
        named("Model.safetensors", "model.safetensors"),
        'paths "Model.safetensors" and "model.safetensors" are one file where case or '
        "Unicode form is not kept apart",
    ),
    (
        "names_equal_but_for_unicode_form",
        named("gr\u00f6\u00dfe", "gro\u0308\u00dfe"),
        'paths "größe" and "gro\u0308ße" are one file where case or Unicode form is not '
        "kept apart",
    ),
    (
        "file_that_is_also_a_folder",
        named("target", "target/config.json"),
        'path "target" is a file, and also the folder of "target/config.json"',
    ),
    (
        "file_that_is_also_a_folder_but_for_case",
        named("Target", "target/config.json"),
        'path "Target" is a file, and also the folder of "target/config.json"',
    ),
]


@pytest.mark.parametrize(
    ("changes", "message"),
    [pytest.param(changes, message, id=fault) for fault, changes, message in STATEMENTS],
)
def test_statements(changes: dict[str, object], message: str) -> None:
    data = packed(stated(DIGESTS, changes))
    assert refusal(read_statement, data) == f"model.sig: payload: {message}"


def test_a_name_twice_by_an_escape() -> None:
    data = packed(stated(DIGESTS)).replace(b'"name": "b"', rb'"name": "\u0061"')
    assert refusal(read_statement, data) == 'model.sig: payload: path "a" appears twice'


# Certificates.


def certificate(
    subject: str,
    key: CertificatePublicKeyTypes,
    issuer: str,
    by: CertificateIssuerPrivateKeyTypes,
    *more: x509.ExtensionType,
    ca: bool = False,
    signs: bool = True,
) -> x509.Certificate:
    """A certificate that holds what one for signatures must, and `more`."""
    start = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
    authority = by.public_key()
    usage = x509.KeyUsage(
        digital_signature=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key)
        .serial_number(5)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )
    assert isinstance(authority, ec.EllipticCurvePublicKey)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority)
    for extension in (identifier, *more):
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(by, SHA256())


ROOT_KEY: Final = ec.derive_private_key(3, ec.SECP256R1())
ROOT: Final = certificate("root", ROOT_KEY.public_key(), "root", ROOT_KEY, ca=True)
LEAF: Final = certificate("leaf", KEY.public_key(), "root", ROOT_KEY)
DER: Final = LEAF.public_bytes(Encoding.DER)
#: A name of a kind that no library reads, where other names of the signer's stand.
ODD_NAME: Final = x509.UnrecognizedExtension(
    ObjectIdentifier("2.5.29.17"), b"\x30\x02\xa3\x00"
)
CERTIFICATES: list[tuple[str, bytes, type[Exception], str]] = [
    ("empty", b"", FormatError, "a certificate is malformed"),
    ("pem", LEAF.public_bytes(Encoding.PEM), FormatError, "a certificate is malformed"),
    ("cut_short", DER[:-1], FormatError, "a certificate is malformed"),
    ("bytes_after_it", DER + b"\0", FormatError, "a certificate is malformed"),
    (
        "version_7",
        DER.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x06"),
        FormatError,
        "a certificate is malformed",
    ),
    (
        "names_of_an_unknown_kind",
        certificate("leaf", KEY.public_key(), "root", ROOT_KEY, ODD_NAME).public_bytes(
            Encoding.DER
        ),
        FormatError,
        "a certificate is malformed",
    ),
    (
        "key_of_ed25519",
        certificate(
            "leaf",
            ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key(),
            "root",
            ROOT_KEY,
        ).public_bytes(Encoding.DER),
        FormatError,
        "expected the certificate of a key on P-256, P-384 or P-521",
    ),
    (
        "key_of_another_curve",
        certificate(
            "leaf",
            ec.derive_private_key(1, ec.SECP256K1()).public_key(),
            "root",
            ROOT_KEY,
        ).public_bytes(Encoding.DER),
        FormatError,
        "expected the certificate of a key on P-256, P-384 or P-521",
    ),
    (
        "not_for_signatures",
        certificate("leaf", KEY.public_key(), "root", ROOT_KEY, signs=False).public_bytes(
            Encoding.DER
        ),
        SignatureError,
        "the signer's certificate is not one for signatures: expected the key usage "
        "digitalSignature",
    ),
]


@pytest.mark.parametrize(
    ("der", "error", "message"),
    [pytest.param(*case, id=fault) for fault, *case in CERTIFICATES],
)
def test_certificates(der: bytes, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        chains.key_of([der], [ROOT], "model.sig")
    assert str(caught.value) == f"model.sig: {message}"


@pytest.mark.parametrize("der", [b"", DER.replace(b"\x02\x01\x02", b"\x02\x01\x06")])
def test_certificates_above_the_signers(der: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        chains.key_of([DER, der], [ROOT], "model.sig")
    assert str(caught.value) == "model.sig: a certificate is malformed"


# Successions.

LINKS: list[tuple[str, bytes, str]] = [
    (
        "cut_short",
        link(KEY, NEXT)[:-1],
        "line 1: expected an end of line, found the end of the file; it may be cut short",
    ),
    (
        "second_cut_short",
        link(KEY, NEXT) + link(NEXT, KEY)[:-9],
        "line 2: expected an end of line, found the end of the file; it may be cut short",
    ),
    (
        "line_empty",
        link(KEY, NEXT) + b"\n",
        "line 2: not valid JSON: Expecting value at line 1, column 1 (byte 0)",
    ),
    (
        "sixty_five_links",
        link(KEY, NEXT) * 65,
        "expected at most 64 links, found 65",
    ),
    (
        "ten_thousand_lines",
        b"\n" * 10_000,
        "expected at most 64 links, found 10000",
    ),
    (
        "no_bundle",
        b"{}\n",
        'line 1: missing field "mediaType"',
    ),
    (
        "signature_of_files",
        packed(enveloped(packed(stated(DIGESTS)), KEY)) + b"\n",
        f'line 1: payload: predicateType: expected one of "{LINK}", found "{OMS}"',
    ),
    (
        "type_wrong",
        link(KEY, NEXT, {"_type": "x"}),
        f'line 1: payload: _type: expected one of "{STATEMENT}", found "x"',
    ),
    (
        "field_unknown",
        link(KEY, NEXT, {"until": "2030"}),
        'line 1: payload: unknown field "until"',
    ),
    (
        "predicate_field_unknown",
        link(KEY, NEXT, {"predicate/until": "2030"}),
        'line 1: payload: predicate: unknown field "until"',
    ),
    (
        "subject_missing",
        link(KEY, NEXT, {"subject": _GONE}),
        'line 1: payload: missing field "subject"',
    ),
    (
        "key_missing",
        link(KEY, NEXT, {"predicate": {}}),
        'line 1: payload: predicate: missing field "key"',
    ),
    (
        "key_not_pem",
        link(KEY, NEXT, {"predicate/key": fingerprint(NEXT)}),
        "line 1: payload: predicate.key: expected a public key in PEM, which begins with "
        "-----BEGIN PUBLIC KEY-----",
    ),
]


@pytest.mark.parametrize(
    ("data", "message"),
    [pytest.param(data, message, id=fault) for fault, data, message in LINKS],
)
def test_successions(data: bytes, message: str) -> None:
    assert refusal(read_links, data) == f"keys.jsonl: {message}"


def test_a_subject_that_is_not_the_key_that_a_link_names() -> None:
    data = link(KEY, NEXT, {"subject/0/digest/sha256": "00" * 32})
    assert refusal(read_links, data) == (
        f"keys.jsonl: line 1: payload: subject: expected sha256 {fingerprint(NEXT)}, that "
        f"of predicate.key, found {'00' * 32}"
    )


def of_another_kind() -> str:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def private() -> str:
    return KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


# The file is at fault, not the request: as in a trust file.
@pytest.mark.parametrize(
    ("key", "message"),
    [
        pytest.param(
            of_another_kind(),
            "expected an elliptic-curve key on P-256, P-384 or P-521, found another kind",
            id="key_of_another_kind",
        ),
        pytest.param(
            private(),
            "is a private key; give the public one, and nobody this one: "
            "`openssl pkey -pubout` makes it",
            id="private_key",
        ),
    ],
)
def test_keys_that_no_succession_may_name(key: str, message: str) -> None:
    data = link(KEY, NEXT, {"predicate/key": key})
    assert refusal(read_links, data) == (
        f"keys.jsonl: line 1: payload: predicate.key: {message}"
    )


def test_an_empty_succession_has_no_last_key() -> None:
    assert refusal(lambda data: succession.last_key(data, "keys.jsonl"), b"") == (
        "keys.jsonl: is empty; expected a link a line"
    )


def test_a_succession_that_is_cut_short_has_no_last_key() -> None:
    def read(data: bytes) -> object:
        return succession.last_key(data, "keys.jsonl")

    assert refusal(read, link(KEY, NEXT)[:-1]) == (
        "keys.jsonl: line 1: expected an end of line, found the end of the file; it may be "
        "cut short"
    )


# Trust files.

TRUSTS: list[tuple[str, dict[str, object], str]] = [
    (
        "format_of_later",
        {"format": "releasekit-trust/2"},
        'format: expected one of "releasekit-trust/1", found "releasekit-trust/2"',
    ),
    ("format_missing", {"format": _GONE}, 'missing field "format"'),
    ("field_unknown", {"roots": []}, 'unknown field "roots"'),
    ("publishers_missing", {"publishers": _GONE}, 'missing field "publishers"'),
    ("seen_missing", {"seen": _GONE}, 'missing field "seen"'),
    (
        "publisher_field_unknown",
        {"publishers/0/until": "2030"},
        'publishers[0]: unknown field "until"',
    ),
    (
        "publisher_a_string",
        {"publishers/0": "acme"},
        'publishers[0]: expected an object, found "acme"',
    ),
    (
        "name_empty",
        {"publishers/0/name": ""},
        'publishers: "" is no name, or stands twice',
    ),
    (
        "name_of_a_path",
        {"publishers/0/name": "acme/tune"},
        'publishers: "acme/tune" is no name, or stands twice',
    ),
    (
        "name_with_a_line_end",
        {"publishers/0/name": "acme\n"},
        r'publishers: "acme\n" is no name, or stands twice',
    ),
    (
        "name_twice_but_for_case",
        {"publishers": [*TRUST["publishers"], {**TRUST["publishers"][0], "name": "ACME"}]},
        'publishers: "ACME" is no name, or stands twice',
    ),
    (
        "key_of_two_publishers",
        {"publishers": [*TRUST["publishers"], {**TRUST["publishers"][0], "name": "bob"}]},
        "publishers: a key of bob is another's as well",
    ),
    (
        "requirement_a_string",
        {"publishers/0/require_signature": "no"},
        'publishers[0].require_signature: expected true or false, found "no"',
    ),
    (
        "requirement_missing",
        {"publishers/0/require_signature": _GONE},
        'publishers[0]: missing field "require_signature"',
    ),
    (
        "keys_a_string",
        {"publishers/0/keys": pem(KEY)},
        f'publishers[0].keys: expected an array, found "{pem(KEY)[:26]}\\n'
        f'{pem(KEY)[27:59]}…"',
    ),
    (
        "key_a_number",
        {"publishers/0/keys/0": 1},
        "publishers[0].keys[0]: expected a string, found 1",
    ),
    (
        "key_a_fingerprint",
        {"publishers/0/keys/0": fingerprint(KEY)},
        "publishers[0].keys[0]: expected a public key in PEM, which begins with "
        "-----BEGIN PUBLIC KEY-----",
    ),
    (
        "key_of_another_kind",
        {"publishers/0/keys/0": of_another_kind()},
        "publishers[0].keys[0]: expected an elliptic-curve key on P-256, P-384 or P-521, "
        "found another kind",
    ),
    (
        "key_superseded_and_private",
        {"publishers/0/superseded": [pem(NEXT), private()]},
        "publishers[0].superseded[1]: is a private key; give the public one, and nobody "
        "this one: `openssl pkey -pubout` makes it",
    ),
    (
        "seen_key_in_pem",
        {"seen/0/key": "x"},
        f'seen[0].key: expected {HEX}, found "x"',
    ),
    (
        "seen_manifest_short",
        {"seen/0/manifest": "0c"},
        f'seen[0].manifest: expected {HEX}, found "0c"',
    ),
    (
        "seen_version_a_number",
        {"seen/0/version": 1},
        "seen[0].version: expected a string, found 1",
    ),
    (
        "seen_version_with_letters",
        {"seen/0/version": "1.0-rc1"},
        "seen: version: expected one to four numbers with dots between them, such as 1.0, "
        'found "1.0-rc1"',
    ),
    (
        "seen_field_unknown",
        {"seen/0/time": 0},
        'seen[0]: unknown field "time"',
    ),
    (
        "seen_twice",
        {"seen": TRUST["seen"] * 2},
        'seen: "tune" stands twice',
    ),
]


@pytest.mark.parametrize(
    ("changes", "message"),
    [pytest.param(changes, message, id=fault) for fault, changes, message in TRUSTS],
)
def test_trust_files(changes: dict[str, object], message: str) -> None:
    data = packed(changed(TRUST, changes))
    assert refusal(read_trust, data) == f"trust.json: {message}"


# Files that are too large to be read.


def sparse(path: Path, nbytes: int) -> Path:
    with path.open("wb") as file:
        file.truncate(nbytes)
    return path


def test_a_bundle_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    path = sparse(tmp_path / "model.sig", 1 << 30)
    with pytest.raises(FormatError) as caught:
        authenticate(tmp_path, Policy())
    assert str(caught.value) == f"{path}: expected at most 33554432 bytes, found 1073741824"


def test_a_succession_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    path = sparse(tmp_path / "keys.jsonl", 1 << 30)
    with pytest.raises(FormatError) as caught:
        succession.read_links(path)
    assert str(caught.value) == f"{path}: expected at most 262144 bytes, found 1073741824"


def test_a_trust_file_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    path = sparse(tmp_path / "trust.json", 1 << 30)
    path.chmod(0o600)
    with pytest.raises(FormatError) as caught:
        trusts.load(path)
    assert str(caught.value) == f"{path}: expected at most 16777216 bytes, found 1073741824"


def test_a_key_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    path = sparse(tmp_path / "acme.pub.pem", 1 << 30)
    with pytest.raises(FormatError) as caught:
        PublicKey.load(path)
    assert str(caught.value) == (
        f"{path}: expected a public key in PEM, found over 65536 bytes"
    )


def test_a_trust_file_that_everybody_may_write_to(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    path.write_bytes(packed(TRUST))
    path.chmod(0o666)
    with pytest.raises(UsageError) as caught:
        trusts.load(path)
    assert str(caught.value) == (
        f"{path}: others may write to it, so that it proves nothing: look at it with "
        f"`releasekit trust list`, once it is yours alone: `chown $USER {path}`, `chmod "
        f"600 {path}`"
    )


# The cases are refused for what is changed in them, and for nothing else.


def test_the_documents_that_the_cases_change_are_themselves_accepted() -> None:
    payload = packed(stated(DIGESTS))
    read = bundles.parse(packed(enveloped(payload, KEY)), "model.sig")
    assert (read.payload, read.hint) == (payload, hint(KEY))
    assert PublicKey(KEY.public_key()).verifies(read.signature, read.message)
    assert statements.parse(payload, "model.sig").files == DIGESTS
    followed = succession.follow(link(KEY, NEXT), PublicKey(KEY.public_key()), "keys.jsonl")
    assert followed == [PublicKey(NEXT.public_key())]
    trust = trusts.parse(packed(TRUST), Path("trust.json"))
    assert [publisher.name for publisher in trust.publishers] == ["acme"]
    assert chains.key_of([DER], [ROOT], "model.sig") == PublicKey(KEY.public_key())


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"verificationMaterial/tlogEntries": _GONE}, id="no_log"),
        pytest.param({"verificationMaterial/tlogEntries": [ENTRY]}, id="a_log"),
        pytest.param({"verificationMaterial/publicKey/hint": _GONE}, id="no_hint"),
        pytest.param({"verificationMaterial/publicKey/hint": ""}, id="hint_empty"),
        pytest.param({"dsseEnvelope/signatures/0/keyid": _GONE}, id="no_key_id"),
        pytest.param(
            {"verificationMaterial": {"x509CertificateChain": CHAIN}}, id="certificates"
        ),
    ],
)
def test_what_a_bundle_may_leave_out(changes: dict[str, object]) -> None:
    payload = packed(stated(DIGESTS))
    read = bundles.parse(packed(enveloped(payload, KEY, changes)), "model.sig")
    assert read.payload == payload


def test_what_else_a_predicate_says_is_passed_over() -> None:
    changes: dict[str, object] = {
        "predicate/license": "MIT",
        "predicate/serialization/shard_size": 5,
        "predicate/serialization/ignore_paths": _GONE,
    }
    data = packed(stated(DIGESTS, changes))
    assert statements.parse(data, "model.sig").files == DIGESTS
