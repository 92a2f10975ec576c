"""What is signed and what carries it: exact bytes, both directions, nothing left open."""

import base64
import hashlib
import json
import random
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from releasekit.errors import FormatError
from releasekit.signing import bundle
from releasekit.signing.keys import CURVES, PrivateKey, PublicKey
from releasekit.signing.statement import GIT, Statement, parse

A, B, C = "0a" * 32, "0b" * 32, "0c" * 32
#: The key of RFC 6979, A.2.5.
SECRET = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
KEY = PrivateKey(ec.derive_private_key(SECRET, ec.SECP256R1()))
GOLDEN = (
    '{"_type":"https://in-toto.io/Statement/v1",'
    '"subject":[{"name":"größe","digest":{"sha256":"ROOT"}}],'
    '"predicateType":"https://model_signing/signature/v1.0",'
    '"predicate":{"serialization":{"method":"files","hash_type":"sha256",'
    '"allow_symlinks":false,"ignore_paths":[".git","model.sig"]},'
    '"resources":['
    f'{{"name":"README.md","algorithm":"sha256","digest":"{B}"}},'
    f'{{"name":"a/ü","algorithm":"sha256","digest":"{C}"}},'
    f'{{"name":"model.safetensors","algorithm":"sha256","digest":"{A}"}}'
    "]}}"
)
FILES = {"model.safetensors": A, "README.md": B, "a/ü": C}


def root(*digests: str) -> str:
    return hashlib.sha256(bytes.fromhex("".join(digests))).hexdigest()


def packed(files: dict[str, str], *ignored: str) -> Any:
    return json.loads(Statement(name="tune", files=files).pack(ignored))


# Statements.


def test_a_statement_is_these_bytes() -> None:
    made = Statement(name="größe", files=FILES).pack(["model.sig", ".git"])
    assert made.decode() == GOLDEN.replace("ROOT", root(B, C, A))


def test_the_same_files_give_the_same_bytes_in_whatever_order() -> None:
    turned = dict(reversed(FILES.items()))
    one = Statement(name="tune", files=FILES).pack(("a", "b"))
    assert Statement(name="tune", files=turned).pack(("b", "a")) == one
    assert Statement(name="tune", files=FILES).pack({"a": 1, "b": 2}) == one


def test_a_statement_comes_back_as_it_was() -> None:
    statement = Statement(name="größe", files=FILES)
    read = parse(statement.pack(GIT), "model.sig")
    assert (read.name, read.files) == ("größe", FILES)


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_the_subject_is_the_digest_of_all_digests(count: int) -> None:
    source = random.Random(count)
    files = {f"f{number:04}": source.randbytes(32).hex() for number in range(count)}
    document = packed(files)
    assert document["subject"] == [
        {"name": "tune", "digest": {"sha256": root(*files.values())}}
    ]
    assert len(document["predicate"]["resources"]) == count


def test_names_are_sorted_by_code_point() -> None:
    names = ["\U00010000", "\uffee", "a/b", "a-b", "a", "Z", "ä"]
    files = {f"{name}.txt": A for name in names}
    found = [item["name"] for item in packed(files)["predicate"]["resources"]]
    assert found == [
        *("Z.txt", "a-b.txt", "a.txt", "a/b.txt", "ä.txt"),
        *("\uffee.txt", "\U00010000.txt"),
    ]


def test_nothing_is_ignored_unless_it_is_asked_for() -> None:
    assert packed(FILES)["predicate"]["serialization"] == {
        "method": "files",
        "hash_type": "sha256",
        "allow_symlinks": False,
        "ignore_paths": [],
    }


def test_what_is_ignored_is_no_reason_to_leave_out_a_file() -> None:
    made = Statement(name="tune", files=FILES).pack(["model.safetensors", "."])
    assert parse(made, "model.sig").files == FILES


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "predicate.resources: expected at least one file"),
        ({"../x": A}, 'path "../x" has a ".." segment'),
        (
            {"a": A, "A": B},
            'paths "A" and "a" are one file where case or Unicode form is not kept apart',
        ),
        (
            {"a": A[:-1] + "A"},
            "predicate.resources[0].digest: expected 64 lowercase hexadecimal digits, "
            f'found "{A[:59]}…"',
        ),
    ],
)
def test_nothing_is_packed_that_would_be_refused(
    files: dict[str, str], message: str
) -> None:
    with pytest.raises(FormatError) as caught:
        Statement(name="tune", files=files).pack()
    assert str(caught.value) == f"model.sig: payload: {message}"


# Bundles.


def test_what_is_signed_is_told_from_any_other_text() -> None:
    made = bundle.parse(bundle.sign(b"{}", KEY), "model.sig")
    assert made.message == b"DSSEv1 28 application/vnd.in-toto+json 2 {}"
    assert KEY.public.verifies(made.signature, made.message)
    assert not KEY.public.verifies(made.signature, b"{}")


def test_a_bundle_holds_what_the_stock_tool_looks_for() -> None:
    payload = Statement(name="tune", files=FILES).pack()
    signature = bundle.parse(bundle.sign(payload, KEY), "model.sig").signature
    assert json.loads(bundle.sign(payload, KEY)) == {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {
            "publicKey": {"hint": hashlib.sha256(KEY.public.pem).hexdigest()},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }


def test_a_bundle_is_compact() -> None:
    payload = Statement(name="tune", files=FILES).pack()
    data = bundle.sign(payload, KEY)
    text = json.dumps(json.loads(data), separators=(",", ":")).encode()
    assert data == text
    assert not set(b" \t\r\n") & set(data)
    assert data.isascii()
    # Base64 takes a third more than what it holds; all else is no more than this.
    assert len(data) < len(payload) * 4 / 3 + 480


@pytest.mark.parametrize("curve", CURVES)
def test_a_bundle_comes_back_as_it_was(curve: str) -> None:
    key = PrivateKey.generate(curve)
    made = bundle.parse(bundle.sign(b'{"a":1}', key), "model.sig")
    assert (made.payload, made.hint, made.certificates) == (b'{"a":1}', key.public.hint, ())
    assert key.public.verifies(made.signature, made.message)
    assert not PrivateKey.generate(curve).public.verifies(made.signature, made.message)


def deterministic() -> bool:
    """Whether the OpenSSL here can draw its nonces from key and message."""
    key = ec.derive_private_key(1, ec.SECP256R1())
    try:
        key.sign(b"", ec.ECDSA(SHA256(), deterministic_signing=True))
    except UnsupportedAlgorithm:
        return False
    return True


@pytest.mark.skipif(not deterministic(), reason="OpenSSL before 3.2")
def test_signatures_are_those_of_rfc_6979() -> None:
    assert decode_dss_signature(KEY.sign(b"sample")) == (
        0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716,
        0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8,
    )


@pytest.mark.skipif(not deterministic(), reason="OpenSSL before 3.2")
@pytest.mark.parametrize("curve", CURVES)
def test_the_same_payload_and_key_give_the_same_bundle(curve: str) -> None:
    key = PrivateKey.generate(curve)
    assert bundle.sign(b"{}", key) == bundle.sign(b"{}", key)
    assert bundle.sign(b"{}", key) != bundle.sign(b"[]", key)


def is_good(data: bytes, key: PublicKey) -> bool:
    """Whether a bundle is one by this key, and says so."""
    try:
        read = bundle.parse(data, "model.sig")
    except FormatError:
        return False
    return key.hint == read.hint and key.verifies(read.signature, read.message)


def test_no_bit_of_a_bundle_can_change() -> None:
    data = bundle.sign(Statement(name="tune", files={"a": A}).pack(), KEY)
    assert is_good(data, KEY.public)
    for place in range(len(data)):
        for bit in (place % 8, (place + 3) % 8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            assert not is_good(bytes(changed), KEY.public), (place, bit)


def test_no_byte_can_be_taken_out_of_a_bundle_or_cut_off() -> None:
    data = bundle.sign(Statement(name="tune", files={"a": A}).pack(), KEY)
    for place in range(len(data)):
        assert not is_good(data[:place] + data[place + 1 :], KEY.public), place
        assert not is_good(data[:place], KEY.public), place


@pytest.mark.parametrize("signature", [b"", b"\0", b"0\0", b"x" * 72, bytes(72)])
def test_what_is_no_signature_verifies_nothing(signature: bytes) -> None:
    assert not KEY.public.verifies(signature, b"")
