"""Signatures that others can check: OpenSSF Model Signing v1.0, made and verified.

    keys         key pairs on disk, and what they sign
    statement    what is signed: the files of a folder and their SHA-256
    bundle       the file that carries it, `model.sig`: a Sigstore bundle
    chains       bundles that carry certificates in place of a key's name
    succession   a new key, vouched for by the one before it
    rotation     the file of such words, made longer

Nothing in a bundle is used before its signature was checked with a key that the caller
holds already: a key, or the name of one, that comes with the file proves nothing.
"""
