"""Signing keys: elliptic curves P-256, P-384 and P-521, as PEM files that OpenSSL knows.

pyca/cryptography does the cryptography. ECDSA hashes with SHA-256, SHA-384 and SHA-512
respectively, as Sigstore's specification has it, and draws its nonces from key and message
(RFC 6979) where the OpenSSL underneath can: so the same release signed twice is the same
bytes, and a bad source of random numbers cannot give the key away.

A key is called by its fingerprint, the SHA-256 of its SubjectPublicKeyInfo in DER:

    openssl pkey -pubin -in KEY.pub.pem -outform der | sha256sum
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from releasekit.digest import sha256_hex
from releasekit.errors import FormatError, UsageError

#: Curves by the names that people use, the default first.
CURVES: Final[dict[str, ec.EllipticCurve]] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
}
_LABELS: Final = {curve.name: label for label, curve in CURVES.items()}
_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "P-256": hashes.SHA256(),
    "P-384": hashes.SHA384(),
    "P-521": hashes.SHA512(),
}
_MAX_NBYTES: Final = 1 << 16
_PRIVATE: Final = b"PRIVATE KEY-----"
_PUBLIC: Final = b"BEGIN PUBLIC KEY-----"
_WANTED: Final = "an elliptic-curve key on P-256, P-384 or P-521"

#: Asked for a passphrase, with the path of the key; None if there is none to be had.
AskPassphrase = Callable[[Path], bytes | None]


class PublicKey:
    """A key that verifies.

    Attributes:
        curve: `P-256`, `P-384` or `P-521`.
        pem: the key, in the one form of PEM that there is of it.
        fingerprint: what it is called: SHA-256 of its DER, 64 hexadecimal digits.
        hint: what bundles call it: SHA-256 of its PEM.
    """

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        self._key = key
        self.curve = _LABELS[key.curve.name]
        info = PublicFormat.SubjectPublicKeyInfo
        self.pem = key.public_bytes(Encoding.PEM, info)
        self.fingerprint = sha256_hex(key.public_bytes(Encoding.DER, info))
        self.hint = sha256_hex(self.pem)

    @classmethod
    def parse(cls, data: bytes, subject: str) -> Self:
        """Read a key from PEM.

        Raises:
            FormatError: if it is none.
            UsageError: if it is a private key, or one of another kind.
        """
        if _PRIVATE in data:
            raise UsageError(
                f"{subject}: is a private key; give the public one, and nobody this one: "
                "`openssl pkey -pubout` makes it"
            )
        try:
            key = serialization.load_pem_public_key(data)
        except (ValueError, UnsupportedAlgorithm):
            raise FormatError(
                f"{subject}: expected a public key in PEM, which begins with "
                "-----BEGIN PUBLIC KEY-----"
            ) from None
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _LABELS:
            raise UsageError(f"{subject}: expected {_WANTED}, found another kind")
        return cls(key)

    @classmethod
    def listed(cls, text: str, subject: str) -> Self:
        """Read a key that a document holds in PEM, which is at fault for one of any kind.

        Raises:
            FormatError: if it is not a public key on one of the curves.
        """
        try:
            return cls.parse(text.encode(), subject)
        except UsageError as error:
            raise FormatError(str(error)) from None

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a key from a PEM file; raises as `parse`, and UsageError if it is none."""
        path = Path(path)
        return cls.parse(_read(path, "public key"), str(path))

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature`, in DER, is one of `message` by this key."""
        try:
            self._key.verify(signature, message, ec.ECDSA(_HASHES[self.curve]))
        except InvalidSignature:
            return False
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)


class PrivateKey:
    """A key that signs.

    Attributes:
        public: the key that verifies what it signs.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key())

    @classmethod
    def generate(cls, curve: str = "P-256") -> Self:
        """A new key.

        Raises:
            UsageError: if there is no such curve.
        """
        if curve not in CURVES:
            raise UsageError(f"curve: expected one of {', '.join(CURVES)}, found {curve}")
        return cls(ec.generate_private_key(CURVES[curve]))

    @classmethod
    def load(cls, path: str | Path, ask: AskPassphrase | None = None) -> Self:
        """Read a key from a PEM file: PKCS#8, or the form before it.

        Args:
            path: the file.
            ask: called for the passphrase, if the key has one.

        Raises:
            UsageError: if there is none, it is of another kind, or the passphrase is wrong.
            FormatError: if the file is no private key.
        """
        path = Path(path)
        data = _read(path, "private key")
        if _PUBLIC in data:
            raise UsageError(
                f"{path}: is a public key; give the private one, which only its owner has"
            )
        if _PRIVATE not in data:
            raise FormatError(
                f"{path}: expected a private key in PEM, which begins with "
                "-----BEGIN PRIVATE KEY----- or -----BEGIN ENCRYPTED PRIVATE KEY-----"
            )
        passphrase = None
        if b"ENCRYPTED" in data:
            passphrase = ask(path) if ask else None
            if not passphrase:
                raise UsageError(
                    f"{path}: the key has a passphrase; give it with --passphrase-file, or "
                    "type it at a terminal"
                )
        try:
            key = serialization.load_pem_private_key(data, passphrase)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            if passphrase is not None:
                raise UsageError(
                    f"{path}: cannot be decrypted: the passphrase is wrong, or the file is "
                    "damaged"
                ) from None
            raise FormatError(f"{path}: is damaged, or no private key in PEM") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _LABELS:
            raise UsageError(
                f"{path}: expected {_WANTED}, found another kind; `releasekit keygen` "
                "makes one"
            )
        return cls(key)

    def sign(self, message: bytes) -> bytes:
        """A signature of `message`, in DER."""
        algorithm = _HASHES[self.public.curve]
        try:
            return self._key.sign(message, ec.ECDSA(algorithm, deterministic_signing=True))
        except UnsupportedAlgorithm:  # OpenSSL before 3.2
            return self._key.sign(message, ec.ECDSA(algorithm))

    def pem(self, passphrase: bytes | None) -> bytes:
        """The key in PEM, PKCS#8; encrypted unless the passphrase is None."""
        encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def write_pair(key: PrivateKey, path: Path, passphrase: bytes | None) -> Path:
    """Write a key to new files: `NAME.pem` for its owner only, and `NAME.pub.pem`.

    Args:
        key: the pair.
        path: where the private key goes.
        passphrase: encrypts it; None to leave it in the clear.

    Returns:
        Where the public key went.

    Raises:
        UsageError: if one of the files exists.
        OSError: if the system fails; then neither is left.
    """
    refuse_existing(path)
    public = public_path(path)
    _create(path, key.pem(passphrase), 0o600)
    try:
        _create(public, key.public.pem, 0o644)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return public


def refuse_existing(path: Path) -> None:
    """Refuse to make a pair whose files are there already, as UsageError."""
    if path.name in ("", ".."):
        raise UsageError(f"{path}: names no file to make; choose another name")
    for name in (path, public_path(path)):
        if os.path.lexists(name):
            raise UsageError(
                f"{name}: exists already, and keys are never replaced; choose another name"
            )


def public_path(path: Path) -> Path:
    """Where the public key of a private one belongs: `acme.pub.pem` beside `acme.pem`."""
    return path.with_name(f"{path.name.removesuffix('.pem')}.pub.pem")


def _create(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, mode), "wb") as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _read(path: Path, what: str) -> bytes:
    if not path.exists():
        raise UsageError(f"{path}: no such file; expected a {what} in PEM")
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; expected a {what} in PEM")
    with path.open("rb") as file:  # which may be a pipe
        data = file.read(_MAX_NBYTES + 1)
    if len(data) > _MAX_NBYTES:
        raise FormatError(
            f"{path}: expected a {what} in PEM, found over {_MAX_NBYTES} bytes"
        )
    return data
