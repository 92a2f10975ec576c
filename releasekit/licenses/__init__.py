"""Licences of models: what each demands, which apply to a release, whether it keeps them.

    records   what is known of a licence, one TOML file each
    chain     the licences of a release: its own, its bases', the rebuilt model's
    notice    the NOTICE file that a chain calls for
    rules     what speaks against publishing a release under its chain

None of this is legal advice.
"""
