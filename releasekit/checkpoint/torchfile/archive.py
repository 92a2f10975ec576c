"""Zip archives whose members are stored as they are, and so can be read by range.

The directory at the end of the file says where members begin; each has a header of its own
there, and the two must agree. Python's zipfile accepts more than that, such as other data
before the archive, and reads a directory of any size that the file claims.

PKWARE's APPNOTE.TXT 6.3.10 defines the records; numbers are little-endian.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from releasekit.checkpoint.files import Readable
from releasekit.errors import FormatError
from releasekit.names import shown

MAGIC: Final = b"PK\x03\x04"
_MAX_DIRECTORY: Final = 1 << 25  # bytes; a member takes about sixty
_MAX16: Final = 0xFFFF
_MAX32: Final = 0xFFFFFFFF
_ENCRYPTED: Final = 1 << 0
_SIZES_FOLLOW: Final = 1 << 3  # the data, and are not in the header before it
_FOLDER: Final = 1 << 4  # of DOS; torch reads nothing, and calls what it has the tensor
_ZIP64: Final = 1  # the kind of extra field that holds what does not fit 32 bits

# Signature, disks, members, bytes and offset of the directory, length of the comment.
_END: Final = struct.Struct("<4s4H2IH")
# Signature, disk, offset of the record, disks.
_LOCATOR: Final = struct.Struct("<4sIQI")
# Signature, size of the rest, versions, disks, members, bytes and offset of the directory.
_END64: Final = struct.Struct("<4sQ2H2I4Q")
# Signature, versions, flags, method, time, date, CRC, sizes, lengths of name, extra and
# comment, disk, attributes, offset.
_ENTRY: Final = struct.Struct("<4s6H3I5H2I")
# Signature, version, flags, method, time, date, CRC, sizes, lengths of name and extra.
_HEADER: Final = struct.Struct("<4s5H3I2H")


class Member(NamedTuple):
    """A member as the directory has it.

    Attributes:
        name: its path in the archive, undecoded.
        header: offset of its header in the file.
        size: bytes of data.
        fault: why it cannot be read by range; empty if it can.
    """

    name: bytes
    header: int
    size: int
    fault: str


class Archive:
    """The members of an archive that begins a file and ends it.

    Attributes:
        members: by name, in the directory's order.
    """

    def __init__(self, file: Readable) -> None:
        """Read the directory.

        Raises:
            FormatError: if there is none, or the file is anything but the archive.
        """
        self._file = file
        self._where = str(file.path)
        self._begin, size, count = self._end()
        directory = file.read(self._begin, size)
        self.members: dict[bytes, Member] = {}
        at = 0
        for _ in range(count):
            member, at = self._entry(directory, at)
            if member.name in self.members:
                raise FormatError(f"{self._where}: member {_text(member)} appears twice")
            self.members[member.name] = member
        if at != size:
            raise self._fault(f"expected {size} bytes of {count} members, found {at}")

    def place(self, member: Member) -> int:
        """Where a member's data begins in the file, in which all of it lies.

        Raises:
            FormatError: if it is not stored as it is, or has no header like its entry.
        """
        if member.fault:
            raise self._fault(
                f"member {_text(member)}: expected data stored as it is, found it "
                f"{member.fault}: load the file with PyTorch and save it again"
            )
        after = member.header + _HEADER.size + len(member.name)
        if after > self._begin:
            raise self._fault(f"member {_text(member)} lies beyond the members' data")
        head = self._file.read(member.header, after - member.header)
        fields = _HEADER.unpack_from(head)
        magic, _, flags, method, *_, packed, _, name_length, extra_length = fields
        if magic != MAGIC or head[_HEADER.size :] != member.name or method:
            raise self._fault(f"member {_text(member)} has no header like its entry")
        if name_length != len(member.name):
            raise self._fault(f"member {_text(member)} has no header like its entry")
        if not flags & _SIZES_FOLLOW and packed not in (member.size, _MAX32):
            raise self._fault(
                f"member {_text(member)}: expected {member.size} bytes as in its entry, "
                f"found {packed}"
            )
        begin: int = after + extra_length
        if begin + member.size > self._begin:
            raise self._fault(
                f"member {_text(member)}: expected {member.size} bytes from byte {begin} "
                f"on, found the directory at byte {self._begin}"
            )
        return begin

    def read(self, member: Member, limit: int) -> bytes:
        """All data of a small member; FormatError if it has more than `limit` bytes."""
        if member.size > limit:
            raise self._fault(
                f"member {_text(member)}: expected at most {limit} bytes, found "
                f"{member.size}"
            )
        return self._file.read(self.place(member), member.size)

    def _fault(self, words: str) -> FormatError:
        return FormatError(f"{self._where}: zip: {words}")

    def _end(self) -> tuple[int, int, int]:
        """Offset, size and number of members of the directory."""
        size = self._file.size
        start = max(0, size - _END.size - _MAX16 - _LOCATOR.size)
        tail = self._file.read(start, size - start)
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or len(tail) - at < _END.size:
            raise self._fault(
                "expected a directory at the end, found none; the file is cut short: "
                "download it again"
            )
        *_, count, nbytes, begin, comment = _END.unpack_from(tail, at)
        if at + _END.size + comment != len(tail):
            raise self._fault("expected nothing after the directory, found more")
        end = start + at
        if tail[max(0, at - _LOCATOR.size) : at].startswith(b"PK\x06\x07"):
            at -= _LOCATOR.size
            _, _, place, _ = _LOCATOR.unpack_from(tail, at)
            if place + _END64.size > start + at:
                raise self._fault("expected the end of a large directory, found none")
            magic, rest, *_, wide, wide_nbytes, wide_begin = _END64.unpack(
                self._file.read(place, _END64.size)
            )
            end = place
            if magic != b"PK\x06\x06" or place + 12 + rest != start + at:
                raise self._fault("expected the end of a large directory, found none")
            if (
                count not in (wide, _MAX16)
                or nbytes not in (wide_nbytes, _MAX32)
                or begin not in (wide_begin, _MAX32)
            ):
                raise self._fault("expected one directory, found two that differ")
            count, nbytes, begin = wide, wide_nbytes, wide_begin
        if begin + nbytes != end:
            raise self._fault(
                f"expected a directory that ends at byte {end}, found one of {nbytes} "
                f"bytes from byte {begin} on; the file may be damaged, or not begin with "
                "the archive"
            )
        if nbytes > _MAX_DIRECTORY:
            raise self._fault(
                f"expected a directory of at most {_MAX_DIRECTORY} bytes, found {nbytes}"
            )
        if count * _ENTRY.size > nbytes:
            raise self._fault(
                f"expected a directory of {count} members, found one of {nbytes} bytes"
            )
        return begin, nbytes, count

    def _entry(self, directory: bytes, at: int) -> tuple[Member, int]:
        """The entry at `at`, and where the next one is."""
        after = at + _ENTRY.size
        if after > len(directory):
            raise self._fault("expected an entry, found the end of the directory")
        entry = _ENTRY.unpack_from(directory, at)
        magic, _, _, flags, method, _, _, _, packed, size = entry[:10]
        name_length, extra_length, comment_length, _, _, attributes, header = entry[10:]
        name = directory[after : after + name_length]
        extra = directory[after + name_length : after + name_length + extra_length]
        end = after + name_length + extra_length + comment_length
        if magic != b"PK\x01\x02" or end > len(directory):
            raise self._fault(f"expected an entry at byte {self._begin + at}, found none")
        if _MAX32 in (packed, size, header):
            packed, size, header = self._wide(extra, (size, packed, header))
        fault = ""
        if flags & _ENCRYPTED:
            fault = "encrypted"
        elif method or packed != size:
            fault = "compressed"
        elif attributes & _FOLDER:
            fault = "marked as a folder"
        return Member(name, header, size, fault), end

    def _wide(self, extra: bytes, fields: tuple[int, ...]) -> tuple[int, int, int]:
        """The fields, of which those that do not fit 32 bits are in `extra`."""
        at = 0
        while at + 4 <= len(extra):
            kind, length = struct.unpack_from("<2H", extra, at)
            at += 4
            if kind == _ZIP64:
                values = iter(struct.iter_unpack("<Q", extra[at : at + length // 8 * 8]))
                size, packed, header = (
                    next(values, (_MAX32,))[0] if field == _MAX32 else field
                    for field in fields
                )
                return packed, size, header
            at += length
        raise self._fault("expected large sizes beside an entry, found none")


def _text(member: Member) -> str:
    return shown(member.name.decode("utf-8", "replace"))
