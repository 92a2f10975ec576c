"""Paths and addresses in text, reduced to what a stranger may know of them.

    /home/alice                    ~
    /home/alice/acme/llama/x.json  ~/<path-1>/x.json
    /data/acme/llama               <path-2>/llama
    acme/llama                     <path-3>/llama
    https://u:p@hub.acme.com/a/b?c https://<secret>@<host>/<path-4>/b?<secret>

Of folders only the last component is kept, and one folder has the same number wherever it
is named, so that it still shows what lies beside what. A name on the Hub looks like a
relative path, and is taken for one.

Text does not say where a path ends. One that is known, or in quotes, is taken whole; in an
absolute one a folder's name may hold spaces, so that words before a later slash can go with
it; the last component ends at a space. Paths are those of POSIX.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from releasekit.redaction.secrets import MARK, SECRET

_HOST: Final = "<host>"
_USER: Final = "<user>"
#: Hosts that everybody knows, and that tell nothing of who asked them.
_PUBLIC: Final = ("huggingface.co", "hf.co", "localhost", "127.0.0.1")
#: Folders in which each is called as the user is whose it is.
_HOMES: Final = frozenset(("home", "Users"))

# What may stand in a name: in one that a slash follows, in one that ends a path, and in one
# that begins a relative path.
_WIDE: Final = rf"(?:{MARK}|(?<=\w)'(?=\w)|(?![:;,.]\s|\s/)[^\n\"'<>/])"
_NARROW: Final = rf"(?:{MARK}|(?<=\w)'(?=\w)|[^\s\"'<>/])"
_ENDS: Final = r"\s\"'<>/=:,;()\[\]{}|"
_FIRST: Final = rf"(?:{MARK}|[^{_ENDS}])"
_EDGE: Final = rf"(?<![^{_ENDS}])"  # not inside a name
_REST: Final = rf"/++(?:{_NARROW}{_WIDE}*+/++)*+{_NARROW}*+"

# What was reduced before; a colon can stand between two of it.
_REDUCED: Final = rf"(?:~/)?<path-[0-9]+>/{_FIRST}*+(?!/)"
_URL: Final = rf"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]*+://(?:{MARK}|[^\s\"'<>])*+"
_QUOTED: Final = (
    r"""(?<!\w)(?:"(?=[^"\n]*/)(?![^"\n]*://)[^"\n]+"|'(?=[^'\n]*/)(?![^'\n]*://)[^'\n]+')"""
    r"(?!\w)"
)
_ABSOLUTE: Final = rf"{_EDGE}~?{_REST}"
_RELATIVE: Final = rf"{_EDGE}{_FIRST}++(?:/++{_NARROW}*+)++"
# Passed over at once: looked at from each of its marks, it would take quadratic time.
_WORD: Final = rf"{_EDGE}{_FIRST}++(?!/|://)"

_TAIL: Final = re.compile(r"(?<=[\w>])[.,:;!?)\]}]+$")
#: Slashes that separate no folders.
_NO_PATH: Final = re.compile(
    r"[0-9]+/[0-9]+|(?:[kKMGT]?i?B|[kMG]?bits?|bytes|files|tensors|tokens)/s|I/O|n/a"
    r"|and/or"
)
_ONE_MARK: Final = re.compile(rf"(?:~/)?{MARK}")
_ADDRESS: Final = re.compile(r"([^:]+://)(?:(.*)@)?([^/?#]*)([^?#]*)([?#]?)(.*)", re.DOTALL)


class Places:
    """Replaces paths and addresses, and remembers the numbers of folders."""

    def __init__(self, homes: Iterable[str] = (), known: Iterable[str] = ()) -> None:
        """Prepare to replace.

        Args:
            homes: absolute paths of the user's own folder.
            known: what is known to be a path, such as a command's options.
        """
        # The root is the home of nobody, and would make everything part of it.
        self._homes = tuple(home.rstrip("/") for home in homes if home.rstrip("/"))
        whole = {path for path in known if re.search(r"[/\s]", path)} | set(self._homes)
        longest = sorted(filter(None, whole), key=lambda path: (-len(path), path))
        names = "|".join(re.escape(path.rstrip("/") or "/") for path in longest)
        literal = rf"{_EDGE}(?:{names})(?=[{_ENDS}.]|$)(?:{_REST})?"
        kinds = {
            "kept": _REDUCED,
            "url": _URL,
            **({"known": literal} if names else {}),
            "quoted": _QUOTED,
            "path": f"{_ABSOLUTE}|{_RELATIVE}",
            "word": _WORD,
        }
        self._pattern = re.compile("|".join(f"(?P<{k}>{p})" for k, p in kinds.items()))
        self._numbers: dict[str, int] = {}

    def text(self, text: str) -> str:
        """The text with every path and address reduced."""
        return self._pattern.sub(self._replaced, text)

    def path(self, path: str) -> str:
        """A path, reduced: a folder's parents go."""
        for home in self._homes:
            if path == home or path.startswith(f"{home}/"):
                path = f"~{path[len(home) :]}"
                break
        lead = "/" if path.startswith("/") else "~/" if path.startswith("~/") else ""
        names = [name for name in path.removeprefix(lead).split("/") if name]
        end = "/" if names and path.endswith("/") else ""
        if not names:
            return lead.removesuffix("/") or lead
        parent, last = "/".join(names[:-1]), names[-1]
        if names[-2:-1] and names[-2] in _HOMES:
            last = _USER
        if not parent:
            return f"{lead}{last}{end}"
        if _ONE_MARK.fullmatch(parent) or set(parent) <= {".", "/"}:
            return f"{lead}{parent}/{last}{end}" if lead != "/" else f"{parent}/{last}{end}"
        number = self._numbers.setdefault(f"{lead}{parent}", len(self._numbers) + 1)
        return f"{'~/' if lead == '~/' else ''}<path-{number}>/{last}{end}"

    def _replaced(self, found: re.Match[str]) -> str:
        text = found[0]
        if found["kept"] or found["word"]:
            return text
        if found["quoted"]:
            return f"{text[0]}{self.path(text[1:-1])}{text[0]}"
        tail = _TAIL.search(text)
        end = tail[0] if tail else ""
        text = text.removesuffix(end)
        if found["url"]:
            return f"{self._address(text)}{end}"
        return f"{text if _NO_PATH.fullmatch(text) else self.path(text)}{end}"

    def _address(self, text: str) -> str:
        found = _ADDRESS.fullmatch(text)
        assert found is not None, "it has a scheme"
        scheme, user, host, path, mark, query = found.groups()
        name, colon, port = host.rpartition(":") if ":" in host else (host, "", "")
        public = any(name == one or name.endswith(f".{one}") for one in _PUBLIC)
        if name and not public:
            name = _HOST
        if path:
            path = self.path(path)
            path = path if path.startswith("/") else f"/{path}"
        inside = f"{SECRET}@" if user else ""
        return f"{scheme}{inside}{name}{colon}{port}{path}{mark}{SECRET if query else ''}"
