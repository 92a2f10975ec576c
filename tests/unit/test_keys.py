"""Signing keys: which are read, how they are kept, and what they sign."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from releasekit.errors import FormatError, UsageError
from releasekit.signing.keys import (
    CURVES,
    AskPassphrase,
    PrivateKey,
    PublicKey,
    public_path,
    refuse_existing,
    write_pair,
)

PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
INFO = serialization.PublicFormat.SubjectPublicKeyInfo
PKCS8 = serialization.PrivateFormat.PKCS8
SEC1 = serialization.PrivateFormat.TraditionalOpenSSL
OPEN = serialization.NoEncryption()
HASHES: dict[str, hashes.HashAlgorithm] = {
    "P-256": hashes.SHA256(),
    "P-384": hashes.SHA384(),
    "P-521": hashes.SHA512(),
}
WANTED = "expected an elliptic-curve key on P-256, P-384 or P-521, found another kind"


def theirs(key: PrivateKey) -> ec.EllipticCurvePrivateKey:
    """The same key, read without the code that is under test."""
    found = serialization.load_pem_private_key(key.pem(None), None)
    assert isinstance(found, ec.EllipticCurvePrivateKey)
    return found


def no_passphrase(path: Path) -> bytes | None:
    raise AssertionError(path)


# What keys are.


@pytest.mark.parametrize("curve", CURVES)
def test_a_key_is_called_by_the_digest_of_its_der(curve: str) -> None:
    public = PrivateKey.generate(curve).public
    key = serialization.load_pem_public_key(public.pem)
    assert public.curve == curve
    assert public.pem == key.public_bytes(PEM, INFO)
    assert public.fingerprint == hashlib.sha256(key.public_bytes(DER, INFO)).hexdigest()
    assert public.hint == hashlib.sha256(public.pem).hexdigest()


def test_a_key_is_on_a_known_curve() -> None:
    assert PrivateKey.generate().public.curve == next(iter(CURVES)) == "P-256"
    with pytest.raises(UsageError) as caught:
        PrivateKey.generate("P-192")
    assert str(caught.value) == "curve: expected one of P-256, P-384, P-521, found P-192"


def test_keys_are_equal_if_their_points_are() -> None:
    one, other = PrivateKey.generate().public, PrivateKey.generate().public
    again = PublicKey.parse(one.pem, "x")
    assert one == again
    assert hash(one) == hash(again)
    assert one != other
    assert one != one.pem
    assert len({one, again, other}) == 2


def test_a_key_has_one_form_however_it_is_written() -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    point = key.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )
    # SubjectPublicKeyInfo as by `openssl ec -conv_form compressed`.
    head = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    compressed = serialization.load_der_public_key(head + point)
    pem = key.public_bytes(PEM, INFO)
    expected = PublicKey.parse(pem, "x")
    for form in (
        compressed.public_bytes(PEM, INFO),
        pem.replace(b"\n", b"\r\n"),
        b"acme's key\n" + pem,
        pem + b"\n\n",
    ):
        found = PublicKey.parse(form, "x")
        assert (found.pem, found.hint) == (expected.pem, expected.hint)


# What they sign.


@pytest.mark.parametrize("curve", CURVES)
def test_others_verify_what_is_signed(curve: str) -> None:
    key = PrivateKey.generate(curve)
    signature = key.sign(b"message")
    theirs(key).public_key().verify(signature, b"message", ec.ECDSA(HASHES[curve]))
    with pytest.raises(InvalidSignature):
        theirs(key).public_key().verify(signature, b"message", ec.ECDSA(hashes.SHA3_256()))
    assert key.public.verifies(signature, b"message")


@pytest.mark.parametrize("curve", CURVES)
def test_what_others_signed_is_verified(curve: str) -> None:
    key = PrivateKey.generate(curve)
    signature = theirs(key).sign(b"message", ec.ECDSA(HASHES[curve]))
    assert key.public.verifies(signature, b"message")
    assert not key.public.verifies(signature, b"messagE")
    assert not key.public.verifies(signature, b"")
    assert not PrivateKey.generate(curve).public.verifies(signature, b"message")
    assert not PrivateKey.generate("P-384").public.verifies(signature, b"message")


def test_a_signature_is_not_of_another_hash() -> None:
    key = PrivateKey.generate("P-384")
    signature = theirs(key).sign(b"message", ec.ECDSA(hashes.SHA256()))
    assert not key.public.verifies(signature, b"message")


def test_what_is_no_signature_is_none_of_the_message() -> None:
    key = PrivateKey.generate()
    signature = key.sign(b"message")
    r, s = decode_dss_signature(signature)
    raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    for other in (b"", b"\0", raw, signature[:-1], signature + b"\0", b"\x30\x00"):
        assert not key.public.verifies(other, b"message")


# How they are kept.


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("passphrase", [None, b"secret", "größer".encode(), b"x" * 1023])
def test_a_key_comes_back_as_it_was(
    tmp_path: Path, curve: str, passphrase: bytes | None
) -> None:
    key = PrivateKey.generate(curve)
    public = write_pair(key, tmp_path / "k.pem", passphrase)
    asked: list[Path] = []

    def ask(path: Path) -> bytes | None:
        asked.append(path)
        return passphrase

    loaded = PrivateKey.load(tmp_path / "k.pem", ask)
    assert loaded.public == key.public == PublicKey.load(public)
    assert asked == ([tmp_path / "k.pem"] if passphrase else [])
    assert key.public.verifies(loaded.sign(b"x"), b"x")


def test_a_pair_lies_side_by_side(tmp_path: Path) -> None:
    assert public_path(Path("d/acme.pem")) == Path("d/acme.pub.pem")
    assert public_path(Path("acme")) == Path("acme.pub.pem")
    assert public_path(Path("acme.key")) == Path("acme.key.pub.pem")
    deep = tmp_path / "new" / "folder" / "acme"
    assert write_pair(PrivateKey.generate(), deep, None) == deep.with_name("acme.pub.pem")
    assert deep.stat().st_mode & 0o777 == 0o600
    assert deep.read_text().startswith("-----BEGIN PRIVATE KEY-----\n")


@pytest.mark.parametrize("there", ["k.pem", "k.pub.pem"])
def test_no_key_is_replaced(tmp_path: Path, there: str) -> None:
    refuse_existing(tmp_path / "k.pem")
    (tmp_path / there).write_text("mine")
    for call in (
        lambda: refuse_existing(tmp_path / "k.pem"),
        lambda: write_pair(PrivateKey.generate(), tmp_path / "k.pem", None),
    ):
        with pytest.raises(
            UsageError, match=r"exists already, and keys are never replaced"
        ):
            call()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_pair_is_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    left = [failing]

    def full(fd: int) -> None:
        left[0] -= 1
        if not left[0]:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_pair(PrivateKey.generate(), tmp_path / "k.pem", None)
    assert list(tmp_path.iterdir()) == []


def test_a_race_for_a_name_is_lost_without_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process writes it between the look and the writing."""
    (tmp_path / "k.pub.pem").write_text("theirs")
    monkeypatch.setattr("releasekit.signing.keys.refuse_existing", lambda path: None)
    with pytest.raises(FileExistsError):
        write_pair(PrivateKey.generate(), tmp_path / "k.pem", None)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["theirs"]


def test_a_key_may_come_from_a_pipe(tmp_path: Path) -> None:
    key, pipe = PrivateKey.generate(), tmp_path / "pipe"
    os.mkfifo(pipe)
    loads: list[tuple[bytes, Callable[[], PublicKey]]] = [
        (key.pem(None), lambda: PrivateKey.load(pipe).public),
        (key.public.pem, lambda: PublicKey.load(pipe)),
    ]
    for data, load in loads:
        writer = threading.Thread(target=pipe.write_bytes, args=(data,))
        writer.start()
        assert load() == key.public
        writer.join()


# What is refused.


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("form", [PKCS8, SEC1])
def test_a_passphrase_is_asked_for_only_if_there_is_one(
    tmp_path: Path, encrypted: bool, form: serialization.PrivateFormat
) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    locked = serialization.BestAvailableEncryption(b"secret") if encrypted else OPEN
    path = tmp_path / "k.pem"
    path.write_bytes(key.private_bytes(PEM, form, locked))
    if not encrypted:
        assert PrivateKey.load(path, no_passphrase).public.curve == "P-384"
        return
    assert PrivateKey.load(path, lambda path: b"secret").public.curve == "P-384"
    asks: list[AskPassphrase | None] = [None, lambda path: None, lambda path: b""]
    for ask in asks:
        with pytest.raises(UsageError, match="the key has a passphrase; give it with"):
            PrivateKey.load(path, ask)
    with pytest.raises(UsageError, match="cannot be decrypted: the passphrase is wrong"):
        PrivateKey.load(path, lambda path: b"Secret")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\nAAAA", 3))
    with pytest.raises((UsageError, FormatError), match="damaged"):
        PrivateKey.load(path, lambda path: b"secret")


OTHERS: dict[str, Any] = {
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "X25519": x25519.X25519PrivateKey.generate,
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "P-224": lambda: ec.generate_private_key(ec.SECP224R1()),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_keys_of_other_kinds(tmp_path: Path, kind: str) -> None:
    key, path = OTHERS[kind](), tmp_path / "k.pem"
    path.write_bytes(key.private_bytes(PEM, PKCS8, OPEN))
    with pytest.raises(UsageError) as caught:
        PrivateKey.load(path)
    assert str(caught.value) == f"{path}: {WANTED}; `releasekit keygen` makes one"
    with pytest.raises(UsageError) as caught:
        PublicKey.parse(key.public_key().public_bytes(PEM, INFO), "theirs")
    assert str(caught.value) == f"theirs: {WANTED}"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 100,
        b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"ecdsa-sha2-nistp256 AAAA me@here",
    ],
)
def test_what_is_no_public_key(data: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        PublicKey.parse(data, "theirs")
    assert str(caught.value) == (
        "theirs: expected a public key in PEM, which begins with -----BEGIN PUBLIC KEY-----"
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected a private key in PEM, which begins with"),
        (b"\0" * 100, "expected a private key in PEM, which begins with"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n", "is damaged, or no private key in PEM"),
        (
            b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----",
            "is damaged, or no private key in PEM",
        ),
    ],
)
def test_what_is_no_private_key(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "k.pem"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=re.escape(f"{path}: {message}")):
        PrivateKey.load(path)


def test_the_halves_of_a_pair_are_told_apart(tmp_path: Path) -> None:
    public = write_pair(PrivateKey.generate(), tmp_path / "k.pem", None)
    with pytest.raises(UsageError, match="is a private key; give the public one"):
        PublicKey.load(tmp_path / "k.pem")
    locked = PrivateKey.generate().pem(b"secret")
    with pytest.raises(UsageError, match="is a private key; give the public one"):
        PublicKey.parse(locked, "theirs")
    with pytest.raises(UsageError, match="is a public key; give the private one"):
        PrivateKey.load(public)


@pytest.mark.parametrize("load", [PrivateKey.load, PublicKey.load])
def test_paths_that_lead_to_no_key(tmp_path: Path, load: Any) -> None:
    with pytest.raises(UsageError, match="gone: no such file; expected a p"):
        load(tmp_path / "gone")
    with pytest.raises(UsageError, match="is a folder; expected a p"):
        load(tmp_path)
    (tmp_path / "large").write_bytes(b"-----BEGIN PRIVATE KEY-----\n" + b"x" * 70_000)
    with pytest.raises(FormatError, match="65536 bytes"):
        load(tmp_path / "large")
