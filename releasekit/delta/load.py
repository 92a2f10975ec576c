"""Fill a model that is in memory already with a release's weights, in place.

The base may come from files, or be what the model holds: then only the delta is read. Since
that base is overwritten as work goes on, all of it is checked against its digests before
the first byte changes; a model that is refused is as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from releasekit.authenticity import DEFAULT_POLICY, Policy
from releasekit.checkpoint import Checkpoint
from releasekit.checkpoint.hashing import hash_tensor
from releasekit.checkpoint.locate import Located, locate
from releasekit.delta.consent import Consent
from releasekit.delta.lineage import Deltas, named, open_lineage
from releasekit.delta.rebuild import Rebuild
from releasekit.device.choose import TORCH_NBYTES
from releasekit.errors import BaseMismatchError, UsageError
from releasekit.manifest import Manifest
from releasekit.names import shown
from releasekit.operations import Op
from releasekit.pipeline import Workers
from releasekit.progress import ProgressCallback, Stage
from releasekit.resources import DEFAULT_MAX_MEMORY, Resources, share_out
from releasekit.tensors import TensorSpec

if TYPE_CHECKING:
    import torch


def load_into(
    model: torch.nn.Module | Mapping[str, torch.Tensor],
    base: str | Path | None,
    delta: Deltas,
    *,
    policy: Policy = DEFAULT_POLICY,
    accept_license: Consent = False,
    threads: int | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
    progress: ProgressCallback | None = None,
) -> str:
    """Fill a model with the release in `delta`, wherever its tensors are.

    Args:
        model: a module, or tensors by name, with the target's names, dtypes and shapes.
            Buffers that the release does not have are left alone.
        base: the base checkpoint: a path, or a model on the Hub; None if the model holds
            it.
        delta: the release: a path, or on the Hub; or, with a base in files, several that
            build on each other, as in `apply_delta`.
        policy: what is asked of the release's signature.
        accept_license: as in `apply_delta`.
        threads: worker threads; by default one a processor.
        max_memory: bytes of host memory to use at most, beyond the model.
        progress: called with the state of each stage.

    Returns:
        The identity of the checkpoint that the model now holds.

    Raises:
        UsageError: if a path is wrong, or the model does not have the release's tensors.
            The model is unchanged.
        BaseMismatchError: if `base`, or what the model holds, is not the base of this
            delta. The model is unchanged if it was to be the base.
        SignatureError: if `policy` refuses the release. The model is unchanged.
        LicenseError: if terms must be accepted, and were not. The model is unchanged.
        FormatError, IntegrityError: as `apply_delta` does. The model is worthless then.
    """
    from releasekit.device.tensors import MemoryCheckpoint

    with ExitStack() as stack:
        deltas = named(delta)
        if base is None and len(deltas) > 1:
            raise UsageError(
                "the base is in the model's own memory, where only one release has room: "
                "load them one after another, or name the base's folder"
            )
        found = [Located(path=locate(one, progress)) for one in deltas]
        lineage = stack.enter_context(open_lineage(deltas, found, policy))
        manifest = lineage.last.manifest
        tensors = tensors_of(model, manifest)
        checkpoint: Checkpoint
        if base is None:
            needed = needed_of(manifest)
            checkpoint = MemoryCheckpoint(tensors, needed)
        else:
            where = Located(path=locate(base, progress))
            checkpoint = stack.enter_context(lineage.open_base(where))
            lineage.check_base(checkpoint)
        lineage.check_files()
        lineage.agree(accept_license)
        rebuild = lineage.rebuild(checkpoint)
        names = list(manifest.target)
        if base is None:
            names = [n for n in names if manifest.operations[n].op is not Op.SAME]
            names = [n for n in names if manifest.operations[n].of is None]
        # Tied tensors are one place, where two threads must not meet.
        places = {(tensors[n].device, tensors[n].data_ptr()): n for n in names}
        names = list(places.values())
        resources = share_out(
            rebuild.need(names), threads=threads, max_memory=max_memory, extra=TORCH_NBYTES
        )
        if base is None:
            check_memory(manifest, checkpoint, resources.threads, progress)
        _fill(tensors, names, rebuild, resources, progress)
    if base is None:
        _fill_aliases(tensors, manifest)
    lineage.remember()
    return manifest.target_identity


def tensors_of(
    model: torch.nn.Module | Mapping[str, torch.Tensor], manifest: Manifest
) -> dict[str, torch.Tensor]:
    """The model's tensors for each of the target's, checked."""
    from releasekit.device.tensors import dtype_and_shape

    state = model if isinstance(model, Mapping) else model.state_dict()
    missing = [name for name in manifest.target if name not in state]
    if missing:
        more = f", nor {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UsageError(
            f"the model has no tensor {shown(missing[0])}{more} that {manifest.name} has: "
            "build the model from the release's config"
        )
    places: dict[tuple[object, int], str] = {}
    for name, spec in manifest.target.items():
        tensor = state[name]
        dtype, shape = dtype_and_shape(spec)
        if (tensor.dtype, tuple(tensor.shape)) != (dtype, shape):
            raise UsageError(
                f"the model's tensor {shown(name)}: expected {dtype} {list(shape)}, found "
                f"{tensor.dtype} {list(tensor.shape)}: build the model from the release's "
                "config, in the release's dtype"
            )
        if not tensor.is_contiguous() or tensor.device.type == "meta":
            raise UsageError(
                f"the model's tensor {shown(name)}: expected contiguous memory that holds "
                "values: make the model with to_empty(device=…), and fill it before it is "
                "transposed or sharded"
            )
        if not tensor.numel():
            continue
        other = places.setdefault((tensor.device, tensor.data_ptr()), name)
        if manifest.operations[other].digest != manifest.operations[name].digest:
            raise UsageError(
                f"the model ties {shown(other)} and {shown(name)}, which differ in "
                f"{manifest.name}: build it with tie_word_embeddings=False"
            )
    if not isinstance(model, Mapping):
        for name, parameter in model.named_parameters():
            place = parameter.device, parameter.data_ptr()
            if parameter.numel() and name not in manifest.target and place not in places:
                raise UsageError(
                    f"{manifest.name} has no tensor for the model's parameter "
                    f"{shown(name)}: build the model from the release's config"
                )
    return {name: state[name] for name in manifest.target}


def needed_of(manifest: Manifest) -> dict[str, TensorSpec]:
    """Base tensors that predict, which the model must hold in full."""
    needed = manifest.predictors
    for name, base in needed.items():
        target = manifest.target[name]
        if base.dtype is not target.dtype or base.nbytes > target.nbytes:
            raise UsageError(
                f"tensor {shown(name)}: the base has {base.describe()}, which a model with "
                f"{target.describe()} cannot hold: name the base's folder"
            )
    return needed


def check_memory(
    manifest: Manifest,
    base: Checkpoint,
    threads: int,
    progress: ProgressCallback | None,
) -> None:
    """Hold what the model has against the base's digests."""
    stage = Stage(progress, "check base", sum(s.nbytes for s in base.specs.values()))
    with Workers(threads) as workers:
        for name, digest in workers.in_order(lambda n, _: hash_tensor(base, n), base.specs):
            if digest != manifest.base[name].digest:
                raise BaseMismatchError(
                    f"the model in memory: tensor {shown(name)} is not the one that the "
                    "delta was made with: load the base with identity "
                    f"{manifest.base_identity} first; the model is unchanged"
                )
            stage.advance(base.specs[name].nbytes)


def _fill(
    tensors: Mapping[str, torch.Tensor],
    names: list[str],
    rebuild: Rebuild,
    resources: Resources,
    progress: ProgressCallback | None,
) -> None:
    """Rebuild the named tensors in their places, device by device."""
    from releasekit.device.tensors import TensorSink

    total = sum(rebuild.manifest.target[name].nbytes for name in names)
    stage = Stage(progress, "rebuild", total)
    for device in dict.fromkeys(tensors[name].device for name in names):
        here = [name for name in names if tensors[name].device == device]
        sink = TensorSink(device, stage, tensors.__getitem__)
        made = rebuild.combining(sink.combine) if sink.combine else rebuild
        with Workers(resources.threads) as workers:
            buffers = resources.buffers(sink.allocate)
            for name in made.tensors(here, workers, buffers, sink):
                sink.finished(name)


def _fill_aliases(tensors: Mapping[str, torch.Tensor], manifest: Manifest) -> None:
    """Copy tensors that repeat others, unless the model ties them."""
    import torch

    with torch.no_grad():
        for name, tensor in tensors.items():
            source = manifest.operations[name].of
            if source is not None and tensor.data_ptr() != tensors[source].data_ptr():
                tensor.copy_(tensors[source])
