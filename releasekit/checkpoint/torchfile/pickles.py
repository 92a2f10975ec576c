"""The pickles in PyTorch's files, read without running them.

A pickle is a program: it may call whatever Python can import, so that to load a stranger's
is to run the stranger's code. `torch.save` needs little of that to write a state dict, and
no more is known here: the opcodes that it emits, and a list of names. None of them is
imported: a name stands for a value of ours, and a call is not made but noted (`Rebuild`).
Whatever else a pickle asks for is refused by name, and nothing was run.

Any bytes give a value or a FormatError, in bounded time and memory: an opcode makes one
object, whose size is that of its bytes; opcodes are counted; whatever may be shared, and
so be long for few bytes, is not walked more than once; and nothing follows values into
their depth, for they may be nested as deeply as there are bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from releasekit.checkpoint.torchfile.pickled import (
    CALLED,
    DEVICE,
    NAMES,
    ORDERED,
    SIZE,
    STATE_DICT,
    TYPED,
    Name,
    Ordered,
    Rebuild,
    Storage,
    StorageType,
    kind_of,
    refused,
    refused_maker,
)
from releasekit.errors import FormatError
from releasekit.names import shown

#: Bytes of one pickle; a tensor takes about a hundred and twenty.
MAX_BYTES: Final = 1 << 26
#: Opcodes of one pickle; a tensor takes about thirty.
_MAX_STEPS: Final = 6 << 20
_MAX_INTEGER: Final = 9  # bytes of 2**64 - 1 and its sign
_MAX_KEY: Final = 2**60  # of a dict, if it is an integer; sys.hash_info.modulus is larger
_MAX_NUMEL: Final = 2**59  # of 16 bytes
_STOP: Final = ord(".")
_WORD: Final = struct.Struct("<I").unpack_from

#: Opcodes that make objects of classes, by their names in Python's pickletools.
_MAKERS: Final = {
    ord("i"): "INST",
    ord("o"): "OBJ",
    0x81: "NEWOBJ",
    0x92: "NEWOBJ_EX",
    0x82: "EXT1",
    0x83: "EXT2",
    0x84: "EXT4",
}


class CutShortError(FormatError):
    """The pickle goes on beyond the bytes that were given."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a pickle says.

    Attributes:
        value: None, bool, int, float, str, tuple, list, dict, and what `pickled` defines;
            nested to any depth, so that it must not be compared or printed.
        storages: all that it speaks of, by key, in the order of their first use.
        end: one past its last byte.
    """

    value: object
    storages: dict[str, Storage]
    end: int


def load(data: bytes, where: str) -> Loaded:
    """Read the pickle that `data` begins with.

    Args:
        data: the pickle; more may follow.
        where: the file and part that it comes from; begins every message.

    Raises:
        CutShortError: if it does not end in `data`.
        FormatError: if it is not one that torch.save writes for tensors.
    """
    if data[:1] != b"\x80":
        raise FormatError(f"{where}: expected a pickle, found other bytes")
    return _Machine(data, where).run()


class _Machine:
    """The state of one pickle as it is read: see pickletools for what opcodes do."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data = data
        self.where = where
        self.at = 0  # the next byte
        self.began = 0  # the byte of the opcode that is carried out
        self.stack: list[object] = []  # what lies above the last mark
        self.below: list[list[object]] = []  # what lies below each mark
        self.memo: dict[int, object] = {}
        self.storages: dict[str, Storage] = {}
        self.copied = 0

    def run(self) -> Loaded:
        data, size = self.data, len(self.data)
        for _ in range(_MAX_STEPS):
            at = self.at
            if at >= size:
                raise self.cut_short()
            self.began, self.at = at, at + 1
            opcode = data[at]
            action = _ACTIONS.get(opcode)
            if action is not None:
                action(self)
            elif opcode == _STOP:
                value = self.pop()
                if self.stack or self.below:
                    raise self.fault("expected one value at the end, found more")
                return Loaded(value, self.storages, self.at)
            else:
                raise self.refused_opcode(opcode)
        raise self.fault(f"expected an end within {_MAX_STEPS} opcodes, found none")

    # Errors.

    def fault(self, words: str) -> FormatError:
        return FormatError(f"{self.where}: pickle: byte {self.began}: {words}")

    def cut_short(self) -> FormatError:
        return CutShortError(
            f"{self.where}: pickle: expected more than {len(self.data)} bytes; the file "
            "may be cut short"
        )

    def refused_opcode(self, opcode: int) -> FormatError:
        if opcode == ord("i"):  # it names what it calls, as GLOBAL does
            return self.refused_name(f"{self.line()}.{self.line()}")
        if opcode in _MAKERS:
            return FormatError(f"{self.where}: {refused_maker(_MAKERS[opcode])}")
        return self.fault(
            f"expected an opcode that torch.save writes, found 0x{opcode:02x}: the file is "
            "damaged, or holds something other than tensors"
        )

    def refused_name(self, name: str) -> FormatError:
        # The function is the first of the arguments, below which lies what is called.
        callers = [stack[-1] for stack in self.below[-1:] if stack]
        classes = any(isinstance(c, Name) and c.name in TYPED for c in callers)
        return FormatError(f"{self.where}: {refused(name, classes=classes)}")

    # Bytes.

    def take(self, count: int) -> bytes:
        begin = self.at
        self.need(count)
        self.at = begin + count
        return self.data[begin : self.at]

    def need(self, count: int) -> None:
        if self.at + count > len(self.data):
            if count > MAX_BYTES:
                raise self.fault(f"expected at most {MAX_BYTES} bytes, found {count}")
            raise self.cut_short()

    def byte(self) -> int:
        at = self.at
        if at >= len(self.data):
            raise self.cut_short()
        self.at = at + 1
        return self.data[at]

    def word(self) -> int:
        at = self.at
        if at + 4 > len(self.data):
            raise self.cut_short()
        self.at = at + 4
        word: int = _WORD(self.data, at)[0]
        return word

    def unsigned(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def text(self, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self.fault("expected a string in UTF-8, found other bytes") from None

    def line(self) -> str:
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise self.cut_short()
        raw = self.take(end - self.at)
        self.at += 1
        return self.text(raw)

    # The stack.

    def pop(self) -> object:
        if not self.stack:
            raise self.fault("expected a value on the stack, found none")
        return self.stack.pop()

    def top(self) -> object:
        if not self.stack:
            raise self.fault("expected a value on the stack, found none")
        return self.stack[-1]

    def pop_mark(self) -> list[object]:
        if not self.below:
            raise self.fault("expected a mark on the stack, found none")
        items, self.stack = self.stack, self.below.pop()
        return items

    # Opcodes.

    def proto(self) -> None:
        version = self.byte()
        if not 2 <= version <= 5:
            raise self.fault(f"expected pickle protocol 2 to 5, found {version}")

    def frame(self) -> None:
        self.need(self.unsigned(8))  # it says how much could be read at once

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def integer(self, size: int) -> None:
        if size > _MAX_INTEGER:
            raise self.fault(
                f"expected an integer of at most {_MAX_INTEGER} bytes, found {size}"
            )
        self.stack.append(int.from_bytes(self.take(size), "little", signed=True))

    def float_(self) -> None:
        self.stack.append(struct.unpack(">d", self.take(8))[0])

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise self.fault(f"expected {count} values on the stack, found fewer")
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.stack.append(items)

    def tuple_from_mark(self) -> None:
        items = tuple(self.pop_mark())  # now the stack is that below the mark
        self.stack.append(items)

    def append(self, items: list[object]) -> None:
        target = self.top()
        if type(target) is not list:
            raise self.fault(f"expected a list to append to, found {kind_of(target)}")
        target.extend(items)

    def set_items(self, items: list[object]) -> None:
        target = self.top()
        if not isinstance(target, dict):
            raise self.fault(f"expected a dict to fill, found {kind_of(target)}")
        if len(items) % 2:
            raise self.fault("expected a value for each key, found one less")
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.set_item(target, key, value)

    def set_item(self, target: dict[object, object], key: object, value: object) -> None:
        # Others could take long to hash, and larger integers be made to collide.
        if type(key) is not str and (type(key) is not int or abs(key) > _MAX_KEY):
            raise self.fault(f"expected a string as a key, found {kind_of(key)}")
        if key in target:
            raise self.fault(f"key {kind_of(key)} appears twice in a dict")
        target[key] = value

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise self.fault(f"expected a value in the memo at {index}, found none")
        self.stack.append(self.memo[index])

    def put(self, index: int) -> None:
        if not self.stack:
            raise self.fault("expected a value on the stack, found none")
        self.memo[index] = self.stack[-1]

    def global_(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise self.fault(
                f"expected a name, found {kind_of(module)} and {kind_of(name)}"
            )
        full = f"{module}.{name}"
        if full not in NAMES:
            raise self.refused_name(full)
        self.stack.append(NAMES[full])

    def stack_global(self) -> None:
        name = self.pop()
        self.global_(self.pop(), name)

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if type(arguments) is not tuple or type(function) is not Name:
            raise self.fault(
                f"expected a call of a function, found {kind_of(function)} and "
                f"{kind_of(arguments)}"
            )
        if function is ORDERED:
            self.stack.append(self.ordered(arguments))
        elif function is SIZE and len(arguments) == 1 and type(arguments[0]) is tuple:
            self.stack.append(arguments[0])
        elif function is DEVICE:
            self.stack.append(DEVICE)
        elif function.name in CALLED:
            self.stack.append(Rebuild(function.name, arguments))
        else:
            raise self.fault(f"expected a call of a function, found {kind_of(function)}")

    def ordered(self, arguments: tuple[object, ...]) -> Ordered:
        made = Ordered()
        if not arguments:
            return made
        # Python 2 gave the items here, as a list of pairs.
        pairs = arguments[0]
        if len(arguments) > 1 or type(pairs) is not list:
            raise self.fault("expected an OrderedDict of a list of items")
        self.copied += len(pairs)  # for one list may be given to many
        if self.copied > _MAX_STEPS:
            raise self.fault(f"expected at most {_MAX_STEPS} items, found more")
        for pair in pairs:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise self.fault(f"expected a key and its value, found {kind_of(pair)}")
            self.set_item(made, pair[0], pair[1])
        return made

    def build(self) -> None:
        self.pop()  # attributes, such as `_metadata`: versions of modules
        target = self.top()
        if not isinstance(target, Ordered):
            raise self.fault(f"expected attributes of a dict, found of {kind_of(target)}")

    def persistent(self) -> None:
        """A storage: `("storage", type, key, device, numel)`, and before 1.6 one more."""
        found = self.pop()
        if type(found) is not tuple or len(found) not in (5, 6) or found[0] != "storage":
            raise self.fault(
                f"expected a storage, found {kind_of(found)}: the file may hold a whole "
                f"module, which is code; {STATE_DICT}"
            )
        kind, key, _, numel = found[1:5]
        if not isinstance(kind, StorageType) or not isinstance(key, str):
            raise self.fault(
                f"expected a type and a key, found {kind_of(kind)}, {kind_of(key)}"
            )
        if type(numel) is not int or not 0 <= numel <= _MAX_NUMEL:
            raise self.fault(f"expected a storage's size, found {kind_of(numel)}")
        if len(found) == 6 and found[5] is not None:
            raise self.fault(
                "expected a storage, found a part of one, as PyTorch before 0.4 wrote: "
                "load the file with a newer one and save it again"
            )
        storage = Storage(key, kind.dtype, numel)
        known = self.storages.setdefault(key, storage)
        if known != storage:
            raise self.fault(
                f"storage {shown(key)}: expected {known.numel} {known.dtype.label} as "
                f"before, found {numel} {storage.dtype.label}"
            )
        self.stack.append(known)


_Action = Callable[[_Machine], None]
_OPCODES: Final[tuple[tuple[bytes, _Action], ...]] = (
    (b"\x80", _Machine.proto),
    (b"\x95", _Machine.frame),
    (b"(", _Machine.mark),
    (b"N", lambda m: m.stack.append(None)),
    (b"\x88", lambda m: m.stack.append(True)),
    (b"\x89", lambda m: m.stack.append(False)),
    (b"K", lambda m: m.stack.append(m.byte())),
    (b"M", lambda m: m.stack.append(m.unsigned(2))),
    (b"J", lambda m: m.integer(4)),
    (b"\x8a", lambda m: m.integer(m.byte())),
    (b"\x8b", lambda m: m.integer(m.word())),
    (b"G", _Machine.float_),
    (b"X", lambda m: m.stack.append(m.text(m.take(m.word())))),
    (b"\x8c", lambda m: m.stack.append(m.text(m.take(m.byte())))),
    (b"\x8d", lambda m: m.stack.append(m.text(m.take(m.unsigned(8))))),
    (b"U", lambda m: m.stack.append(m.text(m.take(m.byte())))),  # Python 2's strings
    (b"T", lambda m: m.stack.append(m.text(m.take(m.word())))),
    (b")", lambda m: m.stack.append(())),
    (b"\x85", lambda m: m.tuple_of(1)),
    (b"\x86", lambda m: m.tuple_of(2)),
    (b"\x87", lambda m: m.tuple_of(3)),
    (b"t", _Machine.tuple_from_mark),
    (b"]", lambda m: m.stack.append([])),
    (b"a", lambda m: m.append([m.pop()])),
    (b"e", lambda m: m.append(m.pop_mark())),
    (b"}", lambda m: m.stack.append({})),
    (b"s", lambda m: m.set_items([m.pop(), m.pop()][::-1])),
    (b"u", lambda m: m.set_items(m.pop_mark())),
    (b"h", lambda m: m.get(m.byte())),
    (b"j", lambda m: m.get(m.word())),
    (b"q", lambda m: m.put(m.byte())),
    (b"r", lambda m: m.put(m.word())),
    (b"\x94", lambda m: m.put(len(m.memo))),
    (b"c", lambda m: m.global_(m.line(), m.line())),
    (b"\x93", _Machine.stack_global),
    (b"R", _Machine.reduce),
    (b"b", _Machine.build),
    (b"Q", _Machine.persistent),
)
_ACTIONS: Final = {opcode[0]: action for opcode, action in _OPCODES}
