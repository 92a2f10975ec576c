"""Bundles that carry certificates: whose key is it that signed?

pyca/cryptography checks the chain up to the roots that the user names. There are no
default roots: those of the system vouch for web servers, not for who publishes a model.
Which of the holders of certificates under a root signed is not asked, so the root should
be the publisher's own.

The chain is judged as of the first moment at which the signer's certificate was valid, as
the stock tool does: a bundle does not prove when it was made, and models outlive
certificates.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from releasekit.errors import FormatError, SignatureError, UsageError
from releasekit.signing.keys import CURVES, PublicKey

_MAX_NBYTES: Final = 1 << 22
_MAX_DEPTH: Final = 8


def load_roots(path: Path) -> list[x509.Certificate]:
    """Read trusted certificates from a PEM file.

    Raises:
        UsageError: if there is no such file.
        FormatError: if it holds no certificates.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file; expected certificates in PEM")
    with path.open("rb") as file:
        data = file.read(_MAX_NBYTES + 1)
    try:
        if len(data) <= _MAX_NBYTES:
            return x509.load_pem_x509_certificates(data)
    except ValueError:
        pass
    raise FormatError(
        f"{path}: expected certificates in PEM, of {_MAX_NBYTES} bytes at most"
    )


def key_of(
    certificates: Sequence[bytes], roots: Sequence[x509.Certificate], subject: str
) -> PublicKey:
    """The signer's key, once its certificates lead to a root.

    Args:
        certificates: in DER, the signer's first.
        roots: certificates that are trusted.
        subject: the file that they come from; begins every message.

    Raises:
        FormatError: if a certificate is malformed.
        SignatureError: if they lead to none of the roots, or may not sign.
    """
    try:
        signer, *others = map(x509.load_der_x509_certificate, certificates)
        if not _may_sign(signer):
            raise SignatureError(
                f"{subject}: the signer's certificate is not one for signatures: expected "
                "the key usage digitalSignature"
            )
        # What a signer's certificate must hold differs from a web server's, of which the
        # defaults are; for those above it they fit.
        verifier = (
            PolicyBuilder()
            .store(Store(list(roots)))
            .time(signer.not_valid_before_utc)
            .max_chain_depth(_MAX_DEPTH)
            .extension_policies(
                ca_policy=ExtensionPolicy.webpki_defaults_ca(),
                ee_policy=ExtensionPolicy.permit_all(),
            )
            .build_client_verifier()
        )
        verifier.verify(signer, others)
        key = signer.public_key()
    except VerificationError as error:
        reason = str(error).splitlines()[0]
        raise SignatureError(
            f"{subject}: its certificates do not lead to one that is trusted: {reason}"
        ) from None
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension):
        raise FormatError(f"{subject}: a certificate is malformed") from None
    known = {curve.name for curve in CURVES.values()}
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in known:
        raise FormatError(
            f"{subject}: expected the certificate of a key on P-256, P-384 or P-521"
        )
    return PublicKey(key)


def _may_sign(certificate: x509.Certificate) -> bool:
    extensions = certificate.extensions
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        if usage.digital_signature:
            return True
    except x509.ExtensionNotFound:
        pass
    try:
        extended = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return ExtendedKeyUsageOID.CODE_SIGNING in extended
