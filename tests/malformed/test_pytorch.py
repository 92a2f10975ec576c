"""PyTorch files that must be refused: one case a threat, with the words it meets.

What their pickles may hold is tested with `pickles`; here it is what lies around them.
"""

from __future__ import annotations

import io
import pickle as stock
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from releasekit.checkpoint.files import Opener
from releasekit.checkpoint.pytorch import TorchFile
from releasekit.errors import FormatError
from tests.builders import safetensors_bytes
from tests.torchfiles import (
    MAGIC,
    call,
    dict_of,
    legacy_file,
    list_of,
    name,
    number,
    pickle,
    storage,
    tensor,
    text,
    zip_file,
)

DATA = struct.pack("<4f", *range(4))
VALUE = dict_of({"w": tensor()})
TWO = dict_of(
    {key: tensor(storage("FloatStorage", key), 0, (4,), (1,)) for key in ("0", "1")}
)
GOOD = zip_file(pickle(VALUE), {"0": DATA})
PAIR = zip_file(pickle(TWO), {"0": DATA, "1": DATA})
LEGACY = legacy_file(pickle(VALUE), {"0": (4, DATA)})
WARNING = (
    "loading this file with pickle could run any code; nothing of it was run; get the "
    "model as safetensors, or from a source you trust"
)
MALICE = dict_of({"w": call(name("posix", "system"), text("touch ran"))})


def refusal(file: bytes, folder: Path) -> str:
    path = folder / "m.bin"
    path.write_bytes(file)
    with ExitStack() as kept, pytest.raises(FormatError) as caught:
        TorchFile.open(path, "m.bin", Opener(kept=kept))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    return message.removeprefix(f"{path}: ")


def entry_of(file: bytes, member: str) -> int:
    """Where the directory's entry of a member begins."""
    return file.rindex(member.encode()) - 46


def header_of(file: bytes, member: str) -> int:
    """Where a member's own header begins."""
    return file.index(member.encode()) - 30


def changed(file: bytes, at: int, layout: str, *values: int) -> bytes:
    new = struct.pack(f"<{layout}", *values)
    return file[:at] + new + file[at + len(new) :]


def end_of(file: bytes) -> int:
    return file.rindex(b"PK\5\6")


def members(file: bytes) -> int:
    return int(struct.unpack_from("<H", file, end_of(file) + 10)[0])


def zip_with(*entries: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as archive:
        for path, data in entries:
            archive.writestr(path, data)
    return made.getvalue()


def zip64(file: bytes, **fields: int) -> bytes:
    """The file with the long form of the directory's end, some of whose fields differ."""
    at = end_of(file)
    _, _, _, _, count, size, begin, _ = struct.unpack_from("<4s4H2IH", file, at)
    values = {"magic": 0x06064B50, "rest": 44, "count": count, "size": size}
    values |= {"begin": begin, "place": at, "short": 0xFFFFFFFF}
    values |= fields
    order = ("magic", "rest", "count", "count", "size", "begin")
    magic, rest, here, total, size, begin = (values[key] for key in order)
    end = struct.pack("<IQ2H2I4Q", magic, rest, 45, 45, 0, 0, here, total, size, begin)
    end += struct.pack("<4sIQI", b"PK\6\7", 0, values["place"], 1)
    short = values["short"]
    end += struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, short, short, 0)
    return file[:at] + end


def tar_file() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    return made.getvalue()


OTHER_FILES = {
    "empty_file": (b"", "is empty: download it again"),
    "other_bytes": (
        b"not a model",
        "is no file of torch.save: expected a zip archive or PyTorch's older format",
    ),
    "one_byte": (
        b"P",
        "is no file of torch.save: expected a zip archive or PyTorch's older format",
    ),
    "empty_zip": (
        zip_with(),
        "is no file of torch.save: expected a zip archive or PyTorch's older format",
    ),
    "safetensors": (
        safetensors_bytes({"w": ("U8", [1], b"x")}),
        "seems to be a safetensors file: let its name end in .safetensors",
    ),
    "plain_pickle": (
        stock.dumps({"w": [1.0]}, 2),
        "is a pickle, but not of torch.save: get the model as safetensors, since loading a "
        "pickle could run any code",
    ),
    "tar": (
        tar_file(),
        "is a tar archive, as the first PyTorch versions wrote: load it with PyTorch and "
        "save it again",
    ),
    "git_lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        "is a Git LFS pointer, not the weights: run `git lfs pull`, or download the file "
        "itself",
    ),
    "web_page": (
        b"<!DOCTYPE html><html>",
        "is an HTML page, not weights: the download answered with an error; download the "
        "file again",
    ),
    "gguf": (
        b"GGUF\3\0\0\0",
        "is a GGUF file, whose weights are quantised: get the original weights",
    ),
    "zip_of_other_things": (
        zip_with(("word/document.xml", b"<xml/>")),
        "is a zip archive, but not of torch.save: expected one member "
        '"NAME/data.pkl", found none',
    ),
    "zip_with_a_deep_pickle": (
        zip_with(("a/b/data.pkl", pickle(VALUE))),
        "is a zip archive, but not of torch.save: expected one member "
        '"NAME/data.pkl", found none',
    ),
    "zip_of_two_models": (
        zip_with(("a/data.pkl", pickle(VALUE)), ("b/data.pkl", pickle(VALUE))),
        "is a zip archive, but not of torch.save: expected one member "
        '"NAME/data.pkl", found 2',
    ),
    "torchscript": (
        zip_file(pickle(VALUE), {"0": DATA}, {"m/code/__torch__.py": b""}),
        "is a TorchScript archive, which holds code beside the weights: get the model's "
        "state dict, or its weights as safetensors",
    ),
    "torchscript_constants": (
        zip_file(pickle(VALUE), {"0": DATA}, {"m/constants.pkl": b""}),
        "is a TorchScript archive, which holds code beside the weights: get the model's "
        "state dict, or its weights as safetensors",
    ),
}

NO_DIRECTORY = (
    "zip: expected a directory at the end, found none; the file is cut short: download it "
    "again"
)
NO_LARGE = "zip: expected the end of a large directory, found none"
DIRECTORY = {
    "cut_in_the_data": (GOOD[: GOOD.index(DATA) + 3], NO_DIRECTORY),
    "cut_by_a_byte": (GOOD[:-1], NO_DIRECTORY),
    "only_the_magic": (GOOD[:4], NO_DIRECTORY),
    "data_after_the_end": (
        GOOD + b"x",
        "zip: expected nothing after the directory, found more",
    ),
    "comment_cut": (
        changed(GOOD, len(GOOD) - 2, "H", 7),
        "zip: expected nothing after the directory, found more",
    ),
    "two_archives": (
        GOOD + GOOD,
        f"zip: expected a directory that ends at byte {len(GOOD) + end_of(GOOD)}, found "
        f"one of {end_of(GOOD) - entry_of(GOOD, 'm/data.pkl')} bytes from byte "
        f"{entry_of(GOOD, 'm/data.pkl')} on; the file may be damaged, or not begin with "
        "the archive",
    ),
    "directory_of_2_32_bytes": (
        changed(GOOD, end_of(GOOD) + 12, "I", 0xFFFFFFFE),
        f"zip: expected a directory that ends at byte {end_of(GOOD)}, found one of "
        f"4294967294 bytes from byte {entry_of(GOOD, 'm/data.pkl')} on; the file may be "
        "damaged, or not begin with the archive",
    ),
    "more_members_than_entries": (
        changed(GOOD, end_of(GOOD) + 10, "H", members(GOOD) + 1),
        f"zip: expected a directory of {members(GOOD) + 1} members, found one of "
        f"{end_of(GOOD) - entry_of(GOOD, 'm/data.pkl')} bytes",
    ),
    "far_more_members_than_entries": (
        changed(GOOD, end_of(GOOD) + 10, "H", 65_000),
        "zip: expected a directory of 65000 members, found one of "
        f"{end_of(GOOD) - entry_of(GOOD, 'm/data.pkl')} bytes",
    ),
    "an_entry_that_takes_the_room_of_another": (
        changed(
            changed(GOOD, entry_of(GOOD, "m/data.pkl") + 32, "H", 60),
            *(end_of(GOOD) + 10, "H", members(GOOD)),
        ),
        f"zip: expected an entry at byte {entry_of(GOOD, 'm/version') + 60}, found none",
    ),
    "an_entry_that_takes_almost_all_that_follows": (
        changed(GOOD, entry_of(GOOD, "m/version") + 32, "H", 50),
        "zip: expected an entry, found the end of the directory",
    ),
    "fewer_members_than_entries": (
        changed(GOOD, end_of(GOOD) + 10, "H", members(GOOD) - 1),
        f"zip: expected {end_of(GOOD) - entry_of(GOOD, 'm/data.pkl')} bytes of 2 members, "
        f"found {entry_of(GOOD, 'm/data/0') - entry_of(GOOD, 'm/data.pkl')}",
    ),
    "entry_without_its_magic": (
        changed(GOOD, entry_of(GOOD, "m/data/0"), "I", 0),
        f"zip: expected an entry at byte {entry_of(GOOD, 'm/data/0')}, found none",
    ),
    "entry_beyond_the_directory": (
        changed(GOOD, entry_of(GOOD, "m/data/0") + 32, "H", 60_000),
        f"zip: expected an entry at byte {entry_of(GOOD, 'm/data/0')}, found none",
    ),
    "member_twice": (
        changed(PAIR, PAIR.rindex(b"m/data/1") + 7, "B", ord("0")),
        'm.bin: member "m/data/0" appears twice',
    ),
    "large_end_elsewhere": (zip64(GOOD, place=0), NO_LARGE),
    "large_end_beyond_the_file": (zip64(GOOD, place=2**63), NO_LARGE),
    "large_end_without_its_magic": (zip64(GOOD, magic=0), NO_LARGE),
    "large_end_of_other_length": (zip64(GOOD, rest=45), NO_LARGE),
    "large_end_that_differs": (
        zip64(GOOD, short=0),
        "zip: expected one directory, found two that differ",
    ),
    "large_directory_of_2_63_bytes": (
        zip64(GOOD, size=2**63),
        f"zip: expected a directory that ends at byte {end_of(GOOD)}, found one of "
        f"{2**63} bytes from byte {entry_of(GOOD, 'm/data.pkl')} on; the file may be "
        "damaged, or not begin with the archive",
    ),
    "large_number_of_members": (
        zip64(GOOD, count=2**60),
        f"zip: expected a directory of {2**60} members, found one of "
        f"{end_of(GOOD) - entry_of(GOOD, 'm/data.pkl')} bytes",
    ),
    "large_sizes_missing": (
        changed(GOOD, entry_of(GOOD, "m/data/0") + 24, "I", 0xFFFFFFFF),
        "zip: expected large sizes beside an entry, found none",
    ),
}

NOT_AS_IT_IS = (
    'zip: member "m/data/0": expected data stored as it is, found it {}: load the file '
    "with PyTorch and save it again"
)
NO_HEADER = 'zip: member "m/data/0" has no header like its entry'
MEMBERS = {
    "compressed": (
        zip_file(pickle(VALUE), {"0": bytes(16)}, compression=zipfile.ZIP_DEFLATED),
        'zip: member "m/data.pkl": expected data stored as it is, found it compressed: '
        "load the file with PyTorch and save it again",
    ),
    "entry_compressed": (
        changed(GOOD, entry_of(GOOD, "m/data/0") + 10, "H", 8),
        NOT_AS_IT_IS.format("compressed"),
    ),
    "entry_of_two_sizes": (
        changed(GOOD, entry_of(GOOD, "m/data/0") + 20, "I", 15),
        NOT_AS_IT_IS.format("compressed"),
    ),
    "entry_encrypted": (
        changed(GOOD, entry_of(GOOD, "m/data/0") + 8, "H", 1),
        NOT_AS_IT_IS.format("encrypted"),
    ),
    "entry_of_a_folder": (  # torch.load: accepted, and gives bytes of its memory
        changed(GOOD, entry_of(GOOD, "m/data/0") + 38, "I", 16),
        NOT_AS_IT_IS.format("marked as a folder"),
    ),
    "header_compressed": (
        changed(GOOD, header_of(GOOD, "m/data/0") + 8, "H", 8),
        NO_HEADER,
    ),
    "header_without_its_magic": (
        changed(GOOD, header_of(GOOD, "m/data/0"), "I", 0),
        NO_HEADER,
    ),
    "header_of_another_name": (
        changed(GOOD, header_of(GOOD, "m/data/0") + 37, "B", ord("1")),
        NO_HEADER,
    ),
    "header_of_a_longer_name": (
        changed(GOOD, header_of(GOOD, "m/data/0") + 26, "H", 9),
        NO_HEADER,
    ),
    "header_of_another_size": (
        changed(GOOD, header_of(GOOD, "m/data/0") + 18, "I", 15),
        'zip: member "m/data/0": expected 16 bytes as in its entry, found 15',
    ),
    "header_in_the_directory": (
        changed(GOOD, entry_of(GOOD, "m/data/0") + 42, "I", end_of(GOOD) - 60),
        'zip: member "m/data/0" lies beyond the members\' data',
    ),
    "header_beyond_the_file": (
        changed(GOOD, entry_of(GOOD, "m/data/0") + 42, "I", 2**31),
        'zip: member "m/data/0" lies beyond the members\' data',
    ),
    "data_in_the_directory": (
        changed(GOOD, header_of(GOOD, "m/data/0") + 28, "H", 1000),
        'zip: member "m/data/0": expected 16 bytes from byte '
        f"{GOOD.index(DATA) + 1000} on, found the directory at byte "
        f"{entry_of(GOOD, 'm/data.pkl')}",
    ),
    "storage_missing": (
        zip_file(pickle(VALUE), {"1": DATA}),
        'storage "0" is missing',
    ),
    "storage_of_another_folder": (
        zip_file(pickle(VALUE), {}, {"n/data/0": DATA}),
        'storage "0" is missing',
    ),
    "storage_too_small": (
        zip_file(pickle(VALUE), {"0": DATA[:12]}),
        'storage "0": expected 4 elements of F32, 16 bytes, found 12 bytes',
    ),
    "storage_too_large": (
        zip_file(pickle(VALUE), {"0": DATA + b"x"}),
        'storage "0": expected 4 elements of F32, 16 bytes, found 17 bytes',
    ),
    "storages_overlap": (
        changed(PAIR, header_of(PAIR, "m/data/0") + 28, "H", 30),
        'storages "0" and "1" overlap in the file',
    ),
    "two_names_for_a_pickle_that_goes_on": (
        zip_file(pickle(VALUE) + b"x", {"0": DATA}),
        f"data.pkl: expected a pickle of {len(pickle(VALUE)) + 1} bytes, found one that "
        f"ends at byte {len(pickle(VALUE))}",
    ),
    "pickle_cut": (
        zip_file(pickle(VALUE)[:-9], {"0": DATA}),
        f"pickle: expected more than {len(pickle(VALUE)) - 9} bytes; the file may be cut "
        "short",
    ),
    "pickle_empty": (zip_file(b"", {}), "expected a pickle, found other bytes"),
    "big_endian": (
        zip_file(pickle(VALUE), {"0": DATA}, {"m/byteorder": b"big"}),
        "expected numbers with the low byte first, found another order: load the file with "
        "PyTorch on a usual machine and save it again",
    ),
    "byteorder_of_a_megabyte": (
        zip_file(pickle(VALUE), {"0": DATA}, {"m/byteorder": bytes(1 << 20)}),
        'zip: member "m/byteorder": expected at most 16 bytes, found 1048576',
    ),
    "malicious": (
        zip_file(pickle(MALICE), {}),
        f'names "posix.system", which is no part of a state dict of tensors; {WARNING}',
    ),
    "name_with_control_characters": (
        zip_file(b"", {}, folder="\x1b[2J", compression=zipfile.ZIP_DEFLATED),
        r'zip: member "\u001b[2J/data.pkl": expected data stored as it is, found it '
        "compressed: load the file with PyTorch and save it again",
    ),
}

OTHER_ORDER = (
    "expected numbers with the low byte first, found another order: load the file with "
    "PyTorch on a usual machine and save it again"
)
OLDER = {
    "only_the_magic": (
        LEGACY[: len(MAGIC)],
        "expected a pickle, found other bytes",
    ),
    "version_1000": (
        legacy_file(pickle(VALUE), {"0": (4, DATA)}, version=number(1000)),
        "expected version 1001 of PyTorch's older format, found the number 1000",
    ),
    "version_a_list": (
        legacy_file(pickle(VALUE), {"0": (4, DATA)}, version=b"]"),
        "expected version 1001 of PyTorch's older format, found a list of 0",
    ),
    "machine_a_list": (
        legacy_file(pickle(VALUE), {"0": (4, DATA)}, machine=b"]"),
        OTHER_ORDER,
    ),
    "machine_unknown": (
        legacy_file(pickle(VALUE), {"0": (4, DATA)}, machine=b"}"),
        OTHER_ORDER,
    ),
    "big_endian": (
        legacy_file(
            pickle(VALUE), {"0": (4, DATA)}, machine=b"}X\r\0\0\0little_endian\x89s"
        ),
        OTHER_ORDER,
    ),
    "keys_a_dict": (
        legacy_file(pickle(VALUE), {"0": (4, DATA)}, keys=b"}"),
        "expected a list of storages, found a dict of 0",
    ),
    "keys_of_numbers": (
        legacy_file(pickle(VALUE), {"0": (4, DATA)}, keys=list_of(number(0))),
        "expected storages' keys, found the number 0",
    ),
    "key_unknown": (
        legacy_file(pickle(VALUE), {"0": (4, DATA), "1": (4, DATA)}),
        'storage "1" is listed without a tensor in it',
    ),
    "key_twice": (
        legacy_file(pickle(VALUE), {"0": (4, DATA)}, keys=list_of(text("0"), text("0"))),
        'storage "0" is listed twice',
    ),
    "key_missing": (legacy_file(pickle(VALUE), {}), 'storage "0" is missing'),
    "storage_of_another_size": (
        legacy_file(pickle(VALUE), {"0": (5, DATA)}),
        'storage "0": expected 4 elements of F32, 16 bytes, found 5 elements',
    ),
    "storage_of_minus_1": (
        legacy_file(pickle(VALUE), {"0": (-1, DATA)}),
        'storage "0": expected 4 elements of F32, 16 bytes, found 18446744073709551615 '
        "elements",
    ),
    "cut_by_a_byte": (
        LEGACY[:-1],
        f'storage "0": expected an end at byte {len(LEGACY)}, found a file of '
        f"{len(LEGACY) - 1}; it is cut short: download it again",
    ),
    "cut_before_the_storages": (
        LEGACY[:-24],
        f'storage "0": expected an end at byte {len(LEGACY)}, found a file of '
        f"{len(LEGACY) - 24}; it is cut short: download it again",
    ),
    "bytes_after_the_end": (
        LEGACY + b"x",
        f"expected the end at byte {len(LEGACY)}, after the last storage, found a file of "
        f"{len(LEGACY) + 1} bytes",
    ),
    "two_files": (
        LEGACY + LEGACY,
        f"expected the end at byte {len(LEGACY)}, after the last storage, found a file of "
        f"{2 * len(LEGACY)} bytes",
    ),
    "malicious": (
        legacy_file(pickle(MALICE), {}),
        f'names "posix.system", which is no part of a state dict of tensors; {WARNING}',
    ),
    "malicious_machine": (
        legacy_file(pickle(VALUE), {"0": (4, DATA)}, machine=MALICE),
        f'names "posix.system", which is no part of a state dict of tensors; {WARNING}',
    ),
    "malicious_keys": (
        legacy_file(pickle(VALUE), {"0": (4, DATA)}, keys=MALICE),
        f'names "posix.system", which is no part of a state dict of tensors; {WARNING}',
    ),
}


@pytest.mark.parametrize(
    ("file", "message"),
    [
        pytest.param(file, message, id=f"{group}-{threat}")
        for group, cases in (
            ("file", OTHER_FILES),
            ("directory", DIRECTORY),
            ("member", MEMBERS),
            ("older", OLDER),
        )
        for threat, (file, message) in cases.items()
    ],
)
def test_refused(
    file: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal(file, tmp_path) == message.removeprefix("m.bin: ")
    assert [path.name for path in tmp_path.iterdir()] == ["m.bin"]  # nothing was run


@pytest.mark.parametrize("file", [GOOD, LEGACY, PAIR, zip64(GOOD)])
def test_the_files_that_the_cases_change_are_themselves_accepted(
    file: bytes, tmp_path: Path
) -> None:
    (tmp_path / "m.bin").write_bytes(file)
    with ExitStack() as kept:
        assert TorchFile.open(tmp_path / "m.bin", "m", Opener(kept=kept)).specs


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with ExitStack() as kept, pytest.raises(FormatError, match="is not a regular file"):
        TorchFile.open(tmp_path, "m", Opener(kept=kept))


def sparse(path: Path, head: bytes, size: int) -> None:
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)


SPARSE: dict[str, Callable[[int], tuple[bytes, bytes]]] = {
    "a_zip_that_ends_in_nothing": lambda size: (GOOD, b""),
    "a_directory_of_a_gigabyte": lambda size: (
        GOOD[:4],
        struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 9, 9, size - 26, 4, 0),
    ),
    "a_pickle_of_a_gigabyte": lambda size: (LEGACY[: LEGACY.index(b"X\r")] + b"(", b""),
    "a_string_of_a_gigabyte": lambda size: (
        MAGIC + b"\x80\x02X" + struct.pack("<I", size - 100),
        b"",
    ),
    "a_name_of_a_gigabyte": lambda size: (MAGIC + b"\x80\x02c", b""),
}


@pytest.mark.parametrize("case", SPARSE)
def test_large_files_are_refused_without_reading_them(case: str, tmp_path: Path) -> None:
    size = 1 << 30
    head, tail = SPARSE[case](size)
    path = tmp_path / "m.bin"
    sparse(path, head, size - len(tail))
    with path.open("ab") as file:
        file.write(tail)
    began = time.perf_counter()
    with ExitStack() as kept, pytest.raises(FormatError) as caught:
        TorchFile.open(path, "m.bin", Opener(kept=kept))
    assert time.perf_counter() - began < 5
    assert len(str(caught.value)) < 400 + len(str(path))
