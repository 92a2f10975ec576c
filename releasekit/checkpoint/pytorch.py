"""PyTorch checkpoints: state dicts that `torch.save` wrote, in one file or several.

Such a file holds a pickle, which is a program. Loading it with ordinary tools may run
whatever its maker put there, and scanners have been got around time and again. Here the
pickle is never run (see `pickles`): its tensors are read by range, like those of any other
checkpoint, and a file that asks for anything else is refused. Convert such models to
safetensors, and publish those.

There are two formats. Since PyTorch 1.6 a file is a zip archive with the pickle and a
member for each storage, all of them stored as they are. Before, it was five pickles in a
row (a number, a version, the machine, the state dict, the keys of the storages), and then
the storages, each after its number of elements. Tensors are views of storages, of which
several may share one; each is proved to lie in its storage, and each storage in the file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from releasekit.checkpoint.files import Opener, Readable, check_values
from releasekit.checkpoint.indexed import Files, homes_of
from releasekit.checkpoint.strided import Joined, View, row_major
from releasekit.checkpoint.torchfile import pickles
from releasekit.checkpoint.torchfile.archive import MAGIC, Archive
from releasekit.checkpoint.torchfile.pickled import Storage, kind_of
from releasekit.checkpoint.torchfile.pickles import CutShortError, Loaded
from releasekit.checkpoint.torchfile.statedict import Tensor, state_dict
from releasekit.errors import FormatError
from releasekit.names import shown
from releasekit.tensors import TensorSpec

_SNIFF: Final = 512
_PICKLE: Final = b"/data.pkl"
#: What only a TorchScript archive holds.
_SCRIPT: Final = (b"/constants.pkl", b"/code/")
#: Torch's magic number as a pickle of any protocol, the first of the older format.
_LEGACY: Final = re.compile(
    rb"\x80[\x02-\x05](\x95.{8})?\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\.",
    re.DOTALL,
)
_VERSION: Final = 1001
_FIRST_READ: Final = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchFile:
    """One open file, and the tensors of its state dict.

    Attributes:
        name: the file's name in its checkpoint.
        file: the file.
        views: where each tensor lies, in the file's order.
        specs: what each tensor is, likewise.
    """

    name: str
    file: Readable
    views: dict[str, View]
    specs: dict[str, TensorSpec]

    @classmethod
    def open(cls, path: Path, name: str, opener: Opener) -> Self:
        """Open a file, and read what it says of its tensors.

        Raises:
            FormatError: if it is not a state dict of tensors in either format.
        """
        file = opener.open(path)
        head = file.read(0, min(_SNIFF, file.size))
        if head.startswith(MAGIC):
            tensors, places = _read_zip(file)
        elif magic := _LEGACY.match(head):
            tensors, places = _read_legacy(file, magic.end())
        else:
            raise FormatError(f"{path}: {_what_else(head)}")
        views = {name: _view(file, tensor, places) for name, tensor in tensors.items()}
        order = sorted(views, key=lambda name: views[name].offset)
        return cls(
            name=name,
            file=file,
            views={name: views[name] for name in order},
            specs={
                name: TensorSpec(
                    name=name, dtype=tensors[name].dtype, shape=tensors[name].shape
                )
                for name in order
            },
        )


class PyTorchCheckpoint(Files):
    """Tensors of one or more PyTorch files; see `StoredCheckpoint` for the protocol."""

    def __init__(
        self, subject: str, root: Path, names: Sequence[str], opener: Opener
    ) -> None:
        self.subject = subject
        self._kept = opener.kept
        files = [TorchFile.open(root / name, name, opener) for name in names]
        self.file_sizes: Mapping[str, int] = {
            file.name: file.file.size for file in sorted(files, key=lambda f: f.name)
        }
        self.homes = homes_of(subject, ((file.name, file.specs) for file in files))
        self.specs: Mapping[str, TensorSpec] = {
            name: spec for file in files for name, spec in file.specs.items()
        }
        self._tensors = {
            name: Joined(views=(_flat(view),))
            for file in files
            for name, view in file.views.items()
        }

    def read(self, name: str, start: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` with the tensor's bytes from byte `start` on; see `Checkpoint`."""
        tensor = self._tensors[name]
        tensor.read(start, out)
        check_values(out, self.specs[name], tensor.views[0].file.path)


_Read = tuple[dict[str, Tensor], dict[str, int]]


def _read_zip(file: Readable) -> _Read:
    """The tensors, and where each storage begins."""
    where = str(file.path)
    archive = Archive(file)
    for name in archive.members:
        if any(part in name for part in _SCRIPT):
            raise FormatError(
                f"{where}: is a TorchScript archive, which holds code beside the weights: "
                "get the model's state dict, or its weights as safetensors"
            )
    pickled = [name for name in archive.members if _is_pickle(name)]
    if len(pickled) != 1:
        found = "none" if not pickled else f"{len(pickled)}"
        raise FormatError(
            f"{where}: is a zip archive, but not of torch.save: expected one member "
            f'"NAME/data.pkl", found {found}'
        )
    folder = pickled[0].removesuffix(_PICKLE)
    order = archive.members.get(folder + b"/byteorder")
    if order is not None and archive.read(order, 16) != b"little":
        raise FormatError(
            f"{where}: expected numbers with the low byte first, found another order: load "
            "the file with PyTorch on a usual machine and save it again"
        )
    data = archive.read(archive.members[pickled[0]], pickles.MAX_BYTES)
    loaded = pickles.load(data, where)
    if loaded.end != len(data):
        raise FormatError(
            f"{where}: data.pkl: expected a pickle of {len(data)} bytes, found one that "
            f"ends at byte {loaded.end}"
        )
    tensors = state_dict(loaded, where)
    places, taken = {}, []
    for storage in loaded.storages.values():
        member = archive.members.get(folder + b"/data/" + storage.key.encode())
        if member is None:
            raise FormatError(f"{where}: storage {shown(storage.key)} is missing")
        if member.size != storage.nbytes:
            raise _wrong_size(where, storage, f"{member.size} bytes")
        begin = places[storage.key] = archive.place(member)
        taken.append((member.header, begin + member.size, storage.key))
    taken.sort()
    for (_, end, one), (begin, _, other) in pairwise(taken):
        if begin < end:
            raise FormatError(
                f"{where}: storages {shown(one)} and {shown(other)} overlap in the file"
            )
    return tensors, places


def _is_pickle(name: bytes) -> bool:
    return name.endswith(_PICKLE) and name.count(b"/") == 1


def _read_legacy(file: Readable, at: int) -> _Read:
    """The tensors, and where each storage begins, in a file whose magic ends at `at`."""
    where = str(file.path)
    version = _next(file, at)
    if version.value != _VERSION:
        raise FormatError(
            f"{where}: expected version {_VERSION} of PyTorch's older format, found "
            f"{kind_of(version.value)}"
        )
    machine = _next(file, version.end)
    if (
        not isinstance(machine.value, dict)
        or machine.value.get("little_endian") is not True
    ):
        raise FormatError(
            f"{where}: expected numbers with the low byte first, found another order: load "
            "the file with PyTorch on a usual machine and save it again"
        )
    loaded = _next(file, machine.end)
    tensors = state_dict(loaded, where)
    listed = _next(file, loaded.end)
    places: dict[str, int] = {}
    end = listed.end
    for key in _keys(listed.value, where):
        storage = loaded.storages.get(key)
        if storage is None or key in places:
            fault = "twice" if key in places else "without a tensor in it"
            raise FormatError(f"{where}: storage {shown(key)} is listed {fault}")
        places[key] = end + 8
        end += 8 + storage.nbytes
        if end > file.size:
            raise FormatError(
                f"{where}: storage {shown(key)}: expected an end at byte {end}, found a "
                f"file of {file.size}; it is cut short: download it again"
            )
        numel = int.from_bytes(file.read(places[key] - 8, 8), "little")
        if numel != storage.numel:
            raise _wrong_size(where, storage, f"{numel} elements")
    for key in loaded.storages:
        if key not in places:
            raise FormatError(f"{where}: storage {shown(key)} is missing")
    if end != file.size:
        raise FormatError(
            f"{where}: expected the end at byte {end}, after the last storage, found a "
            f"file of {file.size} bytes"
        )
    return tensors, places


def _next(file: Readable, at: int) -> Loaded:
    """The pickle at byte `at`, of which only the beginning is looked at first."""
    where = str(file.path)
    size = _FIRST_READ
    while True:
        data = file.read(at, min(size, file.size - at))
        try:
            loaded = pickles.load(data, where)
        except CutShortError:
            if at + len(data) == file.size or size >= pickles.MAX_BYTES:
                raise
            size = min(8 * size, pickles.MAX_BYTES)
        else:
            return replace(loaded, end=at + loaded.end)


def _keys(value: object, where: str) -> list[str]:
    if not isinstance(value, list):
        raise FormatError(f"{where}: expected a list of storages, found {kind_of(value)}")
    for key in value:
        if not isinstance(key, str):
            raise FormatError(f"{where}: expected storages' keys, found {kind_of(key)}")
    return value


def _wrong_size(where: str, storage: Storage, found: str) -> FormatError:
    return FormatError(
        f"{where}: storage {shown(storage.key)}: expected {storage.numel} elements of "
        f"{storage.dtype.label}, {storage.nbytes} bytes, found {found}"
    )


def _view(file: Readable, tensor: Tensor, places: Mapping[str, int]) -> View:
    itemsize = tensor.dtype.bits // 8
    return View(
        file=file,
        offset=places[tensor.storage.key] + tensor.offset * itemsize,
        shape=tensor.shape,
        strides=tensor.strides,
        itemsize=itemsize,
    )


def _flat(view: View) -> View:
    """The same elements as one row, if they lie end to end: any range of it is one read."""
    pairs = zip(view.shape, view.strides, row_major(view.shape), strict=True)
    if any(size > 1 and stride != whole for size, stride, whole in pairs):
        return view
    return replace(view, shape=(math.prod(view.shape),), strides=(1,))


def _what_else(head: bytes) -> str:
    """What a file is that no PyTorch of today writes."""
    if not head:
        return "is empty: download it again"
    if head[257:262] == b"ustar":
        return (
            "is a tar archive, as the first PyTorch versions wrote: load it with PyTorch "
            "and save it again"
        )
    if head[8:9] == b"{":
        return "seems to be a safetensors file: let its name end in .safetensors"
    if head[:1] == b"\x80":
        return (
            "is a pickle, but not of torch.save: get the model as safetensors, since "
            "loading a pickle could run any code"
        )
    return "is no file of torch.save: expected a zip archive or PyTorch's older format"
