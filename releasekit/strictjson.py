"""JSON that means one thing: parsed strictly, read with the path of each bad field.

Two parsers that disagree over one document let an attacker show each of them another
release. Hence everything that parsers are known to treat differently is refused:
duplicate keys, NaN, numbers beyond what all of them keep, half surrogate pairs, a byte
order mark. The standard library's scanner does the work; its hooks see every object and
number; scans beforehand bound the nesting, so that it cannot exhaust the stack, and the
number of values, each of which takes far more memory than its text.

`Record` reads the fields of one object, and `close` refuses those that nobody asked for.
`null` is never a field's value here: a field that is absent is left out.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections import Counter
from collections.abc import Collection
from itertools import accumulate
from typing import Final, NoReturn

from releasekit.errors import FormatError
from releasekit.names import describe, shown

_MAX_DEPTH: Final = 64
#: Most commas, colons and brackets in a document, those in strings counted too; and half of
#: its most quotes. One of 200,000 tensors has so many; made into values, they take a GiB.
_MAX_VALUES: Final = 6_000_000
_MAX_DIGITS: Final = 20  # of 2**64 - 1
_INT64_MAX: Final = 2**63 - 1

_BOM: Final = b"\xef\xbb\xbf"
# Possessive, and the closing quote is optional: a string without an end would otherwise
# be tried anew from each quote in it, in quadratic time.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_STEP: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_ODD_INTEGER: Final = re.compile(rb"[0-9]{%d}|-0(?![0-9.eE])" % (_MAX_DIGITS + 1))
_SURROGATE_ESCAPE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_HEX_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def loads(data: bytes, subject: str) -> object:
    """Parses one JSON document; white space may surround it.

    Args:
        data: the document in UTF-8.
        subject: the file that `data` comes from; begins every message.

    Returns:
        None, bool, int, float, str, and lists and dicts (in the document's order) of
        these.

    Raises:
        FormatError: `data` is not JSON, or is JSON that parsers read differently.
    """
    if data.startswith(_BOM):
        raise FormatError(f"{subject}: begins with a byte order mark; expected none")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"{subject}: not UTF-8 at byte {error.start}") from None
    _refuse_huge_counts(data, subject)
    _refuse_deep_nesting(data, subject)
    try:
        value = _decoder(data, subject).decode(text)
    except json.JSONDecodeError as error:
        offset = len(text[: error.pos].encode())
        raise FormatError(
            f"{subject}: not valid JSON: {error.msg.removesuffix(' at')} at "
            f"line {error.lineno}, column {error.colno} (byte {offset})"
        ) from None
    # The scanner joins pairs of escapes and lets halves through.
    if _SURROGATE_ESCAPE.search(data):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = shown(error.object[error.start])
            raise FormatError(
                f"{subject}: a string holds {half}, half of a surrogate pair"
            ) from None
    return value


def dumps(value: object) -> bytes:
    """Returns `value` as a document: UTF-8, an indented line a field, in given order.

    Raises:
        ValueError: a number is not finite, or a string is not Unicode text.
    """
    text = json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False)
    return f"{text}\n".encode()


def is_hex_digest(text: str) -> bool:
    """Whether `text` is 32 bytes as 64 lowercase hexadecimal digits."""
    return _HEX_DIGEST.fullmatch(text) is not None


class Record:
    """One JSON object, whose fields are asked for by name and type.

    Every method raises FormatError with the field's full path if the field is missing
    or not what is asked for; those called `optional_` return None if it is missing. So
    does the constructor, if the value is not an object.
    """

    def __init__(self, value: object, subject: str, path: str = "") -> None:
        """Wraps `value`, which must be an object.

        Args:
            value: what `loads` returned, or a part of it.
            subject: the file it comes from, e.g. `release.json`.
            path: where in the document it stands, e.g. `files[0]`; empty for the root.
        """
        self._subject = subject
        self._path = path
        self._asked: set[str] = set()
        if not isinstance(value, dict):
            raise self._fault(path, "an object", value)
        self._fields: dict[str, object] = value

    def has(self, key: str) -> bool:
        """Returns whether the field is there; that alone does not count as asking."""
        return key in self._fields

    def keys(self) -> tuple[str, ...]:
        """Returns the names of all fields, in order; none counts as asked for."""
        return tuple(self._fields)

    def text(self, key: str) -> str:
        """Returns a string."""
        value = self._get(key)
        if not isinstance(value, str):
            raise self._fault(self._at(key), "a string", value)
        return value

    def optional_text(self, key: str) -> str | None:
        """Returns a string, or None if the field is missing."""
        return self.text(key) if self._present(key) else None

    def integer(self, key: str, *, minimum: int = 0, maximum: int = _INT64_MAX) -> int:
        """Returns an integer from `minimum` to `maximum`, both included."""
        return self._integer(self._get(key), self._at(key), minimum, maximum)

    def optional_integer(
        self, key: str, *, minimum: int = 0, maximum: int = _INT64_MAX
    ) -> int | None:
        """Returns an integer as `integer` does, or None if the field is missing."""
        if not self._present(key):
            return None
        return self.integer(key, minimum=minimum, maximum=maximum)

    def boolean(self, key: str) -> bool:
        """Returns true or false."""
        value = self._get(key)
        if not isinstance(value, bool):
            raise self._fault(self._at(key), "true or false", value)
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """Returns true or false, or `default` if the field is missing."""
        return self.boolean(key) if self._present(key) else default

    def number(self, key: str) -> float:
        """Returns a number, integers included."""
        value = self._get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._fault(self._at(key), "a number", value)
        try:
            return float(value)
        except OverflowError:
            raise self._fault(self._at(key), "a number that a float holds", value) from None

    def optional_number(self, key: str) -> float | None:
        """Returns a number as `number` does, or None if the field is missing."""
        return self.number(key) if self._present(key) else None

    def scalar(self, key: str) -> str:
        """Returns a string, or a number as it is written."""
        value = self._get(key)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self._fault(self._at(key), "a string or a number", value)
        return value if isinstance(value, str) else repr(value)

    def choice(self, key: str, options: Collection[str]) -> str:
        """Returns a string that is one of `options`."""
        value = self._get(key)
        if not isinstance(value, str) or value not in options:
            listed = ", ".join(shown(option) for option in options)
            raise self._fault(self._at(key), f"one of {listed}", value)
        return value

    def hex_digest(self, key: str) -> str:
        """Returns 32 bytes as 64 lowercase hexadecimal digits."""
        value = self._get(key)
        if not isinstance(value, str) or not is_hex_digest(value):
            raise self._fault(self._at(key), "64 lowercase hexadecimal digits", value)
        return value

    def base64(self, key: str) -> bytes:
        """Returns bytes that are given in base64, in the one form that there is of it."""
        text = self.text(key)
        try:
            data = base64.b64decode(text.encode(), validate=True)
        except binascii.Error:
            data = None
        # The last digit may have bits that stand for nothing, and are to be 0.
        if data is None or base64.b64encode(data) != text.encode():
            raise self._fault(self._at(key), "base64", text)
        return data

    def count(self, key: str) -> int:
        """Returns the length of an array, whatever is in it."""
        return len(self._items(key))

    def integers(self, key: str) -> tuple[int, ...]:
        """Returns an array of integers, each of at least 0."""
        return tuple(
            self._integer(item, f"{self._at(key)}[{index}]", 0, _INT64_MAX)
            for index, item in enumerate(self._items(key))
        )

    def texts(self, key: str) -> tuple[str, ...]:
        """Returns an array of strings."""
        texts = []
        for index, item in enumerate(self._items(key)):
            if not isinstance(item, str):
                raise self._fault(f"{self._at(key)}[{index}]", "a string", item)
            texts.append(item)
        return tuple(texts)

    def optional_texts(self, key: str) -> tuple[str, ...]:
        """Returns an array of strings; an empty one if the field is missing."""
        return self.texts(key) if self._present(key) else ()

    def record(self, key: str) -> Record:
        """Returns an object, which the caller closes."""
        return Record(self._get(key), self._subject, self._at(key))

    def optional_record(self, key: str) -> Record | None:
        """Returns an object, which the caller closes, or None if it is missing."""
        return self.record(key) if self._present(key) else None

    def records(self, key: str) -> list[Record]:
        """Returns an array of objects, each of which the caller closes."""
        return [
            Record(item, self._subject, f"{self._at(key)}[{index}]")
            for index, item in enumerate(self._items(key))
        ]

    def optional_records(self, key: str) -> list[Record]:
        """Returns an array of objects, which is empty if the field is missing."""
        return self.records(key) if self._present(key) else []

    def place(self, key: str) -> str:
        """Where a field stands, as messages begin: `release.json: files[0].path`."""
        return f"{self._subject}: {self._at(key)}"

    def fault(self, key: str, expected: str) -> FormatError:
        """The error that a field, which is there, is not what is `expected`."""
        return self._fault(self._at(key), expected, self._fields[key])

    def close(self) -> None:
        """Refuses fields never asked for: a reader must not pass over what it was told."""
        for key in self._fields:
            if key not in self._asked:
                raise FormatError(f"{self._where()}: unknown field {shown(key)}")

    def _present(self, key: str) -> bool:
        self._asked.add(key)
        return key in self._fields

    def _get(self, key: str) -> object:
        if not self._present(key):
            raise FormatError(f"{self._where()}: missing field {shown(key)}")
        return self._fields[key]

    def _items(self, key: str) -> list[object]:
        value = self._get(key)
        if not isinstance(value, list):
            raise self._fault(self._at(key), "an array", value)
        return value

    def _integer(self, value: object, path: str, minimum: int, maximum: int) -> int:
        # To Python, True is an integer too.
        if isinstance(value, int) and not isinstance(value, bool):
            if minimum <= value <= maximum:
                return value
            if value > maximum:
                raise self._fault(path, f"an integer of at most {maximum}", value)
        raise self._fault(path, f"an integer of at least {minimum}", value)

    def _at(self, key: str) -> str:
        if not _PLAIN_KEY.fullmatch(key):
            return f"{self._path}[{shown(key)}]"
        return f"{self._path}.{key}" if self._path else key

    def _where(self) -> str:
        return f"{self._subject}: {self._path}" if self._path else self._subject

    def _fault(self, path: str, expected: str, found: object) -> FormatError:
        where = f"{self._subject}: {path}" if path else self._subject
        return FormatError(f"{where}: expected {expected}, found {describe(found)}")


def _decoder(data: bytes, subject: str) -> json.JSONDecoder:
    def integer(text: str) -> int:
        digits = len(text.removeprefix("-"))
        if digits > _MAX_DIGITS:
            raise FormatError(
                f"{subject}: expected integers of at most {_MAX_DIGITS} digits, found "
                f"{text[:_MAX_DIGITS]}… of {digits}"
            )
        if text == "-0":
            # Some parsers read an integer, others a float.
            raise FormatError(f"{subject}: expected 0, found -0")
        return int(text)

    def real(text: str) -> float:
        value = float(text)
        if math.isinf(value):
            raise FormatError(
                f"{subject}: number {describe(text)} is too large for a float"
            )
        return value

    def constant(text: str) -> NoReturn:
        raise FormatError(f"{subject}: expected finite numbers, found {text}")

    def fields(pairs: list[tuple[str, object]]) -> dict[str, object]:
        record = dict(pairs)
        if len(record) != len(pairs):
            counts = Counter(key for key, _ in pairs)
            twice = next(key for key, count in counts.items() if count > 1)
            raise FormatError(f"{subject}: key {shown(twice)} appears twice")
        return record

    return json.JSONDecoder(
        # Most documents are full of integers and have none for the hook to refuse.
        parse_int=integer if _ODD_INTEGER.search(data) else None,
        parse_float=real,
        parse_constant=constant,
        object_pairs_hook=fields,
    )


def _refuse_huge_counts(data: bytes, subject: str) -> None:
    if len(data) <= _MAX_VALUES:
        return
    count = sum(data.count(mark) for mark in (b",", b":", b"[", b"{"))
    count = max(count, data.count(b'"') // 2)
    if count > _MAX_VALUES:
        raise FormatError(
            f"{subject}: expected at most {_MAX_VALUES:,} values, found about {count:,}"
        )


def _refuse_deep_nesting(data: bytes, subject: str) -> None:
    if data.count(b"[") + data.count(b"{") <= _MAX_DEPTH:
        return
    # As far as `data` is JSON, strings are found where the parser finds them; beyond
    # that, the parser does not get.
    brackets = _STRING.sub(b"", data).translate(None, _NOT_BRACKETS)
    if max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > _MAX_DEPTH:
        raise FormatError(f"{subject}: nested deeper than {_MAX_DEPTH} levels")
