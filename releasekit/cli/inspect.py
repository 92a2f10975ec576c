"""`releasekit inspect`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from releasekit.cli import render
from releasekit.cli.exits import EPILOG
from releasekit.cli.licensing import license_document, license_facts
from releasekit.cli.shell import Shell, common_options

if TYPE_CHECKING:
    from releasekit.inspection import DTypeTotal, Inspection, TensorGroup, TensorInfo
    from releasekit.tensors import TensorSpec


@click.command("inspect", epilog=EPILOG)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--tensors", is_flag=True, help="List every tensor; --json does always.")
@common_options
@click.pass_obj
def command(shell: Shell, path: Path, tensors: bool) -> None:
    """Show what a release or a checkpoint holds.

    PATH is a release, or a model: safetensors, PyTorch's .bin, .pt or .pth, Meta's
    consolidated.NN.pth with params.json, or org/name@revision on the Hugging Face Hub.
    Reads headers only, so it is instant on any size. To compare digests, use verify.

    Tensors that differ in nothing but numbers in their names, as those of layers do, are
    one line: layers.{0…79}.up.weight, ×80, with the size of all. -v adds the files.

    \b
    Examples:
      releasekit inspect my-tune-delta
      releasekit inspect llama-65b --tensors
      releasekit inspect llama-65b/consolidated.00.pth --json
    """
    from releasekit.inspection import inspect

    found = inspect(path)
    lines = _lines(found, tensors=tensors, files=shell.verbose)
    shell.result(_document(found), lines)


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
        before = found.manifest.predecessor
        document |= {
            "name": found.manifest.name,
            "version": found.manifest.version,
            "publisher": found.manifest.publisher,
            "signed": found.signed,
            "made_with": found.manifest.made_with,
            "codec": found.manifest.codec.to_json(),
            "base_identity": found.manifest.base_identity,
            "base_release": before and asdict(before),
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


def _lines(found: Inspection, *, tensors: bool, files: bool) -> Iterator[str]:
    width = render.columns()
    yield from (_every_tensor if tensors else _folded)(found, width)
    yield ""
    if files:
        yield from _files("file" if found.manifest is None else "published", found.files)
        yield ""
    if files and found.rebuilt:
        yield from _files("rebuilt", found.rebuilt)
        yield ""
    yield from render.facts(_summary(found))


def _every_tensor(found: Inspection, width: int | None) -> Iterator[str]:
    """A line for each."""
    rows = [
        [info.spec.name, *_kind(info.spec), render.size(info.spec.nbytes), *_made(info)]
        for info in found.tensors
    ]
    return _table(found, ["tensor", "dtype", "shape", "size"], rows, "lllr", width)


def _folded(found: Inspection, width: int | None) -> Iterator[str]:
    """A line for those that are alike but for numbers in their names."""
    groups = found.groups
    if all(group.count == 1 for group in groups):
        return _every_tensor(found, width)
    rows = [
        [
            group.name,
            *_kind(group.spec),
            f"×{group.count}" if group.count > 1 else "",
            render.size(group.nbytes),
            *_made(group),
        ]
        for group in groups
    ]
    header = ["tensors", "dtype", "shape", "", "size"]
    return _table(found, header, rows, "lllrr", width)


def _table(
    found: Inspection, header: list[str], rows: list[list[str]], right: str, to: int | None
) -> Iterator[str]:
    if found.manifest is not None:
        header, right = [*header, "op", "published", "ratio"], f"{right}lrr"
    return render.table(header, rows, right, within=to)


def _kind(spec: TensorSpec) -> list[str]:
    return [spec.dtype.label, " × ".join(map(str, spec.shape)) or "scalar"]


def _made(of: TensorInfo | TensorGroup) -> list[str]:
    """How a release makes them; nothing outside one."""
    if of.op is None:
        return []
    return [of.op, render.size(of.published_nbytes or 0), render.share(of.ratio)]


def _files(title: str, sizes: Mapping[str, int]) -> Iterator[str]:
    rows = [[name, render.size(size)] for name, size in sizes.items()]
    return render.table([title, "size"], rows, "lr", within=render.columns())


def _summary(found: Inspection) -> list[tuple[str, str]]:
    total = sum(found.files.values())
    parameters = [
        ("parameters", render.count(found.parameters)),
        *(("dtype", _dtype(each)) for each in found.dtypes),
    ]
    if found.manifest is None:
        return [
            ("checkpoint", f"{found.path}, {found.container}"),
            ("tensors", f"{len(found.tensors):,}, {render.size(found.tensor_nbytes)}"),
            *parameters,
            ("files", f"{len(found.files)}, {render.size(total)}"),
            *license_facts(found.licenses),
        ]
    full = sum(found.rebuilt.values())
    codec, before = found.manifest.codec, found.manifest.predecessor
    by = f" by {found.manifest.publisher}" if found.manifest.publisher else ""
    return [
        ("release", f"{found.manifest.name}, version {found.manifest.version}"),
        ("made", f"with {found.manifest.made_with}{by}"),
        ("signature", "not checked; see `releasekit verify`" if found.signed else "none"),
        ("tensors", render.operations(found.operations)),
        *parameters,
        ("rebuilds", f"{len(found.rebuilt)} files, {render.size(full)}"),
        ("published", f"{len(found.files)} files, {render.size(total)}"),
        ("ratio", render.share(total / full if full else None)),
        ("codec", f"{codec.id}, {codec.chunk} words a chunk"),
        ("base", found.manifest.base_identity),
        *([("", f"rebuilt by {before.title}")] if before is not None else []),
        ("target", found.manifest.target_identity),
        *license_facts(found.licenses),
    ]


def _dtype(total: DTypeTotal) -> str:
    """`BF16: 723 tensors, 65.3 B parameters, 131 GB`."""
    tensors = "1 tensor" if total.tensors == 1 else f"{total.tensors:,} tensors"
    return (
        f"{total.dtype.label}: {tensors}, {render.count(total.elements)} parameters, "
        f"{render.size(total.nbytes)}"
    )
