"""`releasekit inspect`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from releasekit.cli import render
from releasekit.cli.exits import EPILOG
from releasekit.cli.licensing import license_document, license_facts
from releasekit.cli.shell import Shell, common_options

if TYPE_CHECKING:
    from releasekit.inspection import Inspection


@click.command("inspect", epilog=EPILOG)
@click.argument("path", type=click.Path(path_type=Path))
@common_options
@click.pass_obj
def command(shell: Shell, path: Path) -> None:
    """Show what a release or a checkpoint holds.

    PATH is a release, or a model: safetensors, PyTorch's .bin, .pt or .pth, Meta's
    consolidated.NN.pth with params.json, or org/name@revision on the Hugging Face Hub.
    Reads headers only, so it is instant on any size. To compare digests, use verify.

    \b
    Examples:
      releasekit inspect my-tune-delta
      releasekit inspect llama-65b/consolidated.00.pth --json
    """
    from releasekit.inspection import inspect

    found = inspect(path)
    shell.result(_document(found), _lines(found))


def _document(found: Inspection) -> dict[str, Any]:
    document: dict[str, Any] = {
        "path": str(found.path),
        "kind": found.kind,
        "files": found.files,
        "tensor_nbytes": found.tensor_nbytes,
        "licenses": license_document(found.licenses),
    }
    if found.container is not None:
        document["container"] = found.container
    if found.manifest is not None:
        document |= {
            "name": found.manifest.name,
            "version": found.manifest.version,
            "publisher": found.manifest.publisher,
            "signed": found.signed,
            "made_with": found.manifest.made_with,
            "codec": found.manifest.codec.to_json(),
            "base_identity": found.manifest.base_identity,
            "target_identity": found.manifest.target_identity,
            "operations": found.operations,
            "dropped": list(found.manifest.dropped),
            "rebuilt": found.rebuilt,
        }
    document["tensors"] = [
        {
            "name": info.spec.name,
            "dtype": info.spec.dtype.label,
            "shape": list(info.spec.shape),
            "nbytes": info.spec.nbytes,
            "file": info.file,
        }
        | (
            {}
            if info.op is None
            else {
                "op": info.op,
                "published_nbytes": info.published_nbytes,
                "ratio": info.ratio,
            }
        )
        for info in found.tensors
    ]
    return document


def _lines(found: Inspection) -> Iterator[str]:
    is_delta = found.manifest is not None
    header = [
        "tensor",
        "dtype",
        "shape",
        "size",
        *(["op", "published", "ratio"] * is_delta),
    ]
    rows = []
    for info in found.tensors:
        row = [
            info.spec.name,
            info.spec.dtype.label,
            " × ".join(map(str, info.spec.shape)) or "scalar",
            render.size(info.spec.nbytes),
        ]
        if info.op is not None:
            row += [
                info.op,
                render.size(info.published_nbytes or 0),
                render.share(info.ratio),
            ]
        rows.append(row)
    yield from render.table(header, rows, "lllr" + "lrr" * is_delta)
    yield ""
    yield from render.facts(_summary(found))


def _summary(found: Inspection) -> list[tuple[str, str]]:
    total = sum(found.files.values())
    if found.manifest is None:
        return [
            ("checkpoint", f"{found.path}, {found.container}"),
            ("tensors", f"{len(found.tensors)}, {render.size(found.tensor_nbytes)}"),
            ("files", f"{len(found.files)}, {render.size(total)}"),
            *license_facts(found.licenses),
        ]
    full = sum(found.rebuilt.values())
    codec = found.manifest.codec
    by = f" by {found.manifest.publisher}" if found.manifest.publisher else ""
    return [
        ("release", f"{found.manifest.name}, version {found.manifest.version}"),
        ("made", f"with {found.manifest.made_with}{by}"),
        ("signature", "not checked; see `releasekit verify`" if found.signed else "none"),
        ("tensors", render.operations(found.operations)),
        ("rebuilds", f"{len(found.rebuilt)} files, {render.size(full)}"),
        ("published", f"{len(found.files)} files, {render.size(total)}"),
        ("ratio", render.share(total / full if full else None)),
        ("codec", f"{codec.id}, {codec.chunk} words a chunk"),
        ("base", found.manifest.base_identity),
        ("target", found.manifest.target_identity),
        *license_facts(found.licenses),
    ]
