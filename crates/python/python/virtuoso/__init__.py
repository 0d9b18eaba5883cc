"""Memory dumps and live virtual machines as file trees, tables and records.

    import virtuoso

    with virtuoso.open("guest.elf") as machine:
        print(machine.path("/etc/hostname").read_text())
        for process in machine.processes():
            print(process["pid"], process["command"])

What answers is the machine's own kernel, executed outside over the dump; a pack of the same
kernel, as `virtuoso train` makes it, has to be there. Answers that could not be verified, or that
lack something, say so (`remarks`); what has no answer raises `Error` with the exit code that the
command would end with.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import html
import io
import json
import os
import stat as _stat
import sys
from pathlib import PurePosixPath
from typing import Any, Iterator, NamedTuple

from . import _virtuoso

__all__ = [
    "Answer", "Entry", "Error", "Machine", "MachinePath", "Stat", "Table", "open",
]

# The most that one question to the machine reads.
_PIECE = 1 << 20


class Error(Exception):
    """There is no answer: `code` is the command's exit code, the text names cause and next step."""

    def __init__(self, code: int, text: str):
        super().__init__(text)
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> Any:
        return type(self), (self.code, self.text)


def _of_guest(kind: type) -> type:
    """An error that is also the one which Python raises for such a file."""

    def init(self: Any, code: int, text: str, errno: int = 0) -> None:
        OSError.__init__(self, errno, text)
        self.code, self.text = code, text

    def reduce(self: Any) -> Any:
        return type(self), (self.code, self.text, self.errno)

    name = "Guest" + kind.__name__
    text = "The guest's own answer is this error."
    made = type(name, (Error, kind), {"__init__": init, "__reduce__": reduce, "__doc__": text})
    made.__module__ = __name__
    globals()[name] = made
    return made


# What Linux's error numbers are in Python; the guest's other errors are plain OSErrors.
_ERRORS = {
    2: _of_guest(FileNotFoundError), 13: _of_guest(PermissionError),
    20: _of_guest(NotADirectoryError), 21: _of_guest(IsADirectoryError),
}
_ERRORS[1] = _ERRORS[13]
_OTHER = _of_guest(OSError)


def _failed(failure: _virtuoso.Failure) -> Error:
    code, errno, text = failure.args
    if errno is None:
        return Error(code, text)
    return _ERRORS.get(errno, _OTHER)(code, text, errno)


def _asked(ask: Any, *arguments: Any) -> Any:
    try:
        return ask(*arguments)
    except _virtuoso.Failure as failure:
        raise _failed(failure) from None


def _text(value: dict) -> Any:
    """Names that are no UTF-8 come as their bytes; Python has a form for those (PEP 383)."""
    if set(value) == {"bytes", "text"} and isinstance(value["bytes"], str):
        return _name(bytes.fromhex(value["bytes"]))
    return value


def _name(found: bytes) -> str:
    """A guest's name, whatever this machine's locale is."""
    return found.decode("utf-8", "surrogateescape")


def _bytes(path: Any) -> bytes:
    """A path of the guest: text, bytes or a path object, which may be one of a machine."""
    if isinstance(path, PurePosixPath):
        path = str(path)
    path = os.fspath(path)
    found = path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")
    if b"\0" in found:
        raise ValueError("a path of the guest with a NUL in it")
    return found


def _shown(value: Any) -> str:
    """What a guest chose as a page may show it: no control characters, no direction marks."""
    return "".join(it if it.isprintable() else it.encode("unicode_escape").decode() for it in str(value))


def _clean(value: Any) -> Any:
    """The same without what other libraries take for no text: lone surrogates are escaped."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [_clean(it) for it in value]
    return {name: _clean(it) for name, it in value.items()} if isinstance(value, dict) else value


def _decoded(answer: str) -> Any:
    return json.loads(answer, object_hook=_text)


@dataclasses.dataclass(frozen=True)
class Stat:
    """What the machine says of a file, by the names of `os.stat_result`; no tuple."""

    st_mode: int
    st_ino: int
    st_dev: int
    st_nlink: int
    st_uid: int
    st_gid: int
    st_size: int
    st_blocks: int
    st_blksize: int
    st_rdev: int
    mount: int | None
    st_atime_ns: int
    st_mtime_ns: int
    st_ctime_ns: int
    birthtime_ns: int | None

    @property
    def st_mtime(self) -> float:
        return self.st_mtime_ns / 1e9

    @property
    def st_atime(self) -> float:
        return self.st_atime_ns / 1e9

    @property
    def st_ctime(self) -> float:
        return self.st_ctime_ns / 1e9


class Entry(NamedTuple):
    """An entry of a directory; `kind` is the letter that `ls -l` has, `?` where it is not told."""

    name: str
    kind: str
    inode: int


class Table(list):
    """Rows, each a dictionary, and what there is to say about all of them.

    A row that failed has its `error`, and what is missing of it is not there.
    """

    def __init__(self, rows: list, verified: bool, remarks: list[str], more: dict):
        super().__init__(rows)
        self.verified, self.remarks, self.more = verified, remarks, more

    def _columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self for name in row))

    def to_pandas(self) -> Any:
        """As a `pandas.DataFrame`; bytes that are no UTF-8 are escaped in it."""
        import pandas

        return pandas.DataFrame([_clean(row) for row in self], columns=self._columns())

    def to_arrow(self) -> Any:
        """As a `pyarrow.Table`, with all columns that any row has; addresses are unsigned."""
        import pyarrow

        def column(name: str) -> Any:
            values = [_clean(row.get(name)) for row in self]
            numbers = [it for it in values if it is not None]
            large = numbers and all(type(it) is int for it in numbers) and max(numbers) >= 1 << 63
            return pyarrow.array(values, pyarrow.uint64() if large else None)

        return pyarrow.table({name: column(name) for name in self._columns()})

    def _repr_html_(self) -> str:
        columns = self._columns()
        safe = lambda value: html.escape(_shown(value))
        head = "".join(f"<th>{safe(name)}</th>" for name in columns)
        rows = ("".join(f"<td>{safe(row.get(name, ''))}</td>" for name in columns) for row in self)
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        said = "".join(f"<p>{safe(remark)}</p>" for remark in self.remarks)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{said}"


class Answer(dict):
    """A program's outputs by name; `verified` where slice and whole run agree on them."""

    def __init__(self, outputs: dict, verified: bool, full: list[str], remarks: list[str]):
        super().__init__(outputs)
        self.verified, self.full, self.remarks = verified, full, remarks


class _File(io.RawIOBase):
    """A file of the machine, read piece by piece."""

    def __init__(self, machine: Machine, path: bytes):
        self._machine, self._path, self._at = machine, path, 0
        # What cannot be read is told now, and not when it is first used.
        _asked(machine._target.read, path, 0, 0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence not in (io.SEEK_SET, io.SEEK_CUR, io.SEEK_END):
            raise ValueError(f"no such way to seek: {whence}")
        if whence == io.SEEK_END:
            # Files like procfs's have no size: they are as long as what can be read of them.
            size = _asked(self._machine._target.stat, self._path, True)[6]
            base = size or sum(map(len, self._machine._pieces(self._path, 0, None)))
        else:
            base = self._at if whence == io.SEEK_CUR else 0
        if base + offset < 0:
            raise ValueError("a place before the beginning of the file")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), _PIECE)
        content, _ = _asked(self._machine._target.read, self._path, self._at, wanted)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


class MachinePath(PurePosixPath):
    """A path of a machine, like `pathlib.Path`."""

    if hasattr(PurePosixPath, "with_segments"):

        def __init__(self, *parts: Any, machine: Machine):
            super().__init__(*parts)
            self._machine = machine

        def with_segments(self, *parts: Any) -> MachinePath:
            return type(self)(*parts, machine=self._machine)

    else:
        # Before Python 3.12 paths are made behind the constructor's back.

        def __new__(cls, *parts: Any, machine: Machine | None = None) -> MachinePath:
            self = super().__new__(cls, *parts)
            self._machine = machine
            return self

        def _of(self, other: Any) -> MachinePath:
            other._machine = self._machine
            return other

        def _make_child(self, args: Any) -> MachinePath:
            return self._of(super()._make_child(args))

        def _from(self, other: PurePosixPath) -> MachinePath:
            return type(self)(str(other), machine=self._machine)

        @property
        def parent(self) -> MachinePath:
            return self._from(PurePosixPath(str(self)).parent)

        @property
        def parents(self) -> tuple[MachinePath, ...]:
            return tuple(map(self._from, PurePosixPath(str(self)).parents))

        def relative_to(self, *other: Any) -> MachinePath:
            return self._from(PurePosixPath(str(self)).relative_to(*other))

        def with_name(self, name: str) -> MachinePath:
            return self._from(PurePosixPath(str(self)).with_name(name))

        def with_suffix(self, suffix: str) -> MachinePath:
            return self._from(PurePosixPath(str(self)).with_suffix(suffix))

    def __fspath__(self) -> str:
        # Else open() and everything like it would read this machine's file of that name.
        raise TypeError(f"{self} is a path of another machine: use its open(), read_bytes(), read_text()")

    def __eq__(self, other: Any) -> bool:
        same = isinstance(other, MachinePath) and other._machine is self._machine
        return same and str(self) == str(other)

    def __hash__(self) -> int:
        return hash((id(self._machine), str(self)))

    def iterdir(self) -> Iterator[MachinePath]:
        return (self / name for name in self._machine.listdir(self))

    def stat(self, *, follow_symlinks: bool = True) -> Stat:
        return self._machine.stat(self, follow_symlinks=follow_symlinks)

    def lstat(self) -> Stat:
        return self._machine.stat(self, follow_symlinks=False)

    def exists(self) -> bool:
        return self._machine.exists(self)

    def is_dir(self) -> bool:
        return self.exists() and _stat.S_ISDIR(self.stat().st_mode)

    def is_file(self) -> bool:
        return self.exists() and _stat.S_ISREG(self.stat().st_mode)

    def is_symlink(self) -> bool:
        try:
            return _stat.S_ISLNK(self.lstat().st_mode)
        except FileNotFoundError:
            return False

    def readlink(self) -> MachinePath:
        return self._machine.path(self._machine.readlink(self))

    def open(self, mode: str = "r", **options: Any) -> Any:
        return self._machine.open(self, mode, **options)

    def read_bytes(self) -> bytes:
        return self._machine.read_bytes(self)

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding, errors)

    def glob(self, pattern: str) -> Iterator[MachinePath]:
        if pattern.startswith("/"):
            raise NotImplementedError("patterns have to be relative to the path")
        return (self._machine.path(path) for path in self._machine._found(str(self), pattern))


def _unless_refused(error: Error) -> None:
    """The guest's own errors leave something out of a search; what a dump lacks ends it."""
    if not isinstance(error, OSError):
        raise error


class Machine:
    """A dump, or a live guest, which stands still until it is closed."""

    def __init__(self, words: list[bytes], name: str):
        self.name, self._process = name, os.getpid()
        self._opened = _asked(_virtuoso.Target, words)

    @property
    def _target(self) -> Any:
        # The thread that has the target did not come along into a process that was forked.
        if os.getpid() != self._process:
            raise Error(1, f"{self.name}: it was opened by another process; open it in this one")
        return self._opened

    def __repr__(self) -> str:
        return f"<virtuoso.Machine {self.name!r}>"

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.close()

    def close(self) -> list[str]:
        """Lets a live guest run again, and says where runs did not follow the target.

        Raises `Error` where a live guest did not stand still: then nothing that was answered is
        worth anything.
        """
        return _asked(self._target.close)

    def path(self, *parts: Any) -> MachinePath:
        """A path of this machine, like `pathlib.Path`."""
        return MachinePath(*(_name(_bytes(part)) for part in parts or ("/",)), machine=self)

    def scandir(self, path: Any = "/") -> list[Entry]:
        """The entries of a directory."""
        rows = _asked(self._target.entries, _bytes(path))
        return [Entry(_name(name), kind, inode) for name, kind, inode in rows]

    def listdir(self, path: Any = "/") -> list[str]:
        """The names in a directory."""
        return [entry.name for entry in self.scandir(path)]

    def stat(self, path: Any, *, follow_symlinks: bool = True) -> Stat:
        """What the machine says of a path."""
        mode, inode, device, links, user, group, size, blocks, unit, special, mount, times = _asked(
            self._target.stat, _bytes(path), follow_symlinks
        )
        device, special = os.makedev(*device), os.makedev(*special)
        return Stat(mode, inode, device, links, user, group, size, blocks, unit, special, mount, *times)

    def lstat(self, path: Any) -> Stat:
        """The same of a link itself."""
        return self.stat(path, follow_symlinks=False)

    def exists(self, path: Any, *, follow_symlinks: bool = True) -> bool:
        """Whether the machine has such a file."""
        try:
            self.stat(path, follow_symlinks=follow_symlinks)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def readlink(self, path: Any) -> str:
        """Where a link leads."""
        return _name(_asked(self._target.link, _bytes(path)))

    def _pieces(self, path: bytes, at: int, size: int | None) -> Iterator[bytes]:
        last = None
        while size is None or size > 0:
            wanted = _PIECE if size is None else min(size, _PIECE)
            content, end = _asked(self._target.read, path, at, wanted)
            if content and content == last and len(content) < wanted:
                text = "the guest gives the same bytes at every place in it: give the size to read"
                raise Error(35, f"{_shown(_name(path))}: {text}")
            last = content
            yield content
            at += len(content)
            size = None if size is None else size - len(content)
            if end or not content:
                return

    def read_bytes(self, path: Any, offset: int = 0, size: int | None = None) -> bytes:
        """Bytes of a file, all of them unless told otherwise; some in /proc and /dev have no end."""
        if offset < 0:
            raise ValueError("a place before the beginning of the file")
        size = None if size is not None and size < 0 else size
        return b"".join(self._pieces(_bytes(path), offset, size))

    def open(self, path: Any, mode: str = "r", *, encoding: str = "utf-8", errors: str = "strict") -> Any:
        """A file of the machine, to be read as text ("r") or as bytes ("rb")."""
        if mode not in ("r", "rt", "rb"):
            raise ValueError(f"a machine is never written: mode {mode!r}")
        file = io.BufferedReader(_File(self, _bytes(path)))
        return file if mode == "rb" else io.TextIOWrapper(file, encoding=encoding, errors=errors)

    def walk(self, top: Any = "/", onerror: Any = None) -> Iterator[tuple[str, list[str], list[str]]]:
        """Like `os.walk`, from the top down, without following links."""
        top = _name(_bytes(top))
        try:
            entries = self.scandir(top)
        except Error as error:
            if onerror is not None:
                onerror(error)
            return
        is_directory = lambda it: it.kind == "d" or it.kind == "?" and self._is_directory(top, it.name)
        directories = [it.name for it in entries if is_directory(it)]
        inside = set(directories)
        files = [it.name for it in entries if it.name not in inside]
        yield top, directories, files
        for name in directories:
            yield from self.walk(os.path.join(top, name), onerror)

    def _is_directory(self, top: str, name: str) -> bool:
        try:
            return _stat.S_ISDIR(self.lstat(os.path.join(top, name)).st_mode)
        except Error:
            return False

    def glob(self, pattern: Any) -> Iterator[str]:
        """Paths from the root that a pattern with *, ? and [...] in its parts fits.

        ** fits any directories, and at the end all that is in them; links are not followed by it.
        Names that begin with a dot are found like others. What the guest itself refuses is left
        out; where memory is missing `Error` is raised.
        """
        return self._found("/", _name(_bytes(pattern)))

    def _found(self, top: str, pattern: str) -> Iterator[str]:
        seen = set()
        for path in self._glob(top, [part for part in pattern.split("/") if part]):
            if path not in seen:
                seen.add(path)
                yield path

    def _glob(self, top: str, parts: list[str]) -> Iterator[str]:
        if not parts:
            yield top
            return
        part, rest = parts[0], parts[1:]
        if part == "**":
            for directory, _, files in self.walk(top, _unless_refused):
                yield from self._glob(directory, rest)
                if not rest:
                    yield from (os.path.join(directory, name) for name in files)
            return
        if not any(letter in part for letter in "*?["):
            path = os.path.join(top, part)
            if rest or self.exists(path, follow_symlinks=False):
                yield from self._glob(path, rest)
            return
        try:
            entries = self.scandir(top)
        except Error as error:
            _unless_refused(error)
            return
        for entry in entries:
            if fnmatch.fnmatchcase(entry.name, part):
                yield from self._glob(os.path.join(top, entry.name), rest)

    def processes(self, brief: bool = False) -> Table:
        """The processes; `brief`: with their executables only, which is faster."""
        return self._table("processes", _asked(self._target.processes, brief))

    def modules(self) -> Table:
        """The loaded kernel modules."""
        return self._table("modules", _asked(self._target.modules))

    def sockets(self) -> Table:
        """The sockets of all network namespaces, with the processes that hold them."""
        return self._table("sockets", _asked(self._target.sockets))

    def open_files(self) -> Table:
        """All processes, each with its open files (`files`)."""
        return self._table("files", _asked(self._target.open_files))

    @staticmethod
    def _table(name: str, answer: str) -> Table:
        object = _decoded(answer)
        # File programs are whole runs, with which no slice is compared.
        rows, verified, remarks = object.pop(name), object.pop("verified", False), object.pop("remarks")
        return Table(rows, verified, remarks, object)

    def run(self, program: str, **inputs: Any) -> Answer:
        """What a program of the pack answers: `machine.run("getpsfile", pid=1)["path"]`."""
        text = lambda value: ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        given = [(name, text(value)) for name, value in inputs.items()]
        answer = _decoded(_asked(self._target.run, program, given))
        return Answer(answer["outputs"], answer["verified"], answer["full"], answer["remarks"])


# What resumes a live guest if this process dies is another process of this interpreter.
_RESUMER = """
import os, sys
sys.path.insert(0, sys.argv[1])
from virtuoso import _virtuoso
sys.exit(_virtuoso.run([b"virtuoso", *map(os.fsencode, sys.argv[2:])]))
"""
if sys.executable:
    _place = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    _words = [b"-I", b"-c", _RESUMER.encode(), os.fsencode(_place)]
    _virtuoso.started_by(os.fsencode(sys.executable), _words)


def open(target: Any, packs: Any = None, *, self_pid: int = 1, options: Any = ()) -> Machine:
    """Opens a dump, or a live guest: `qmp:SOCKET` or `libvirt:DOMAIN`.

    `packs` is a directory of packs, by default the user's; `self_pid` the process that /proc/self
    leads to; `options` further ones of `virtuoso ls`, such as `["--tsc", "123", "--partial"]`.
    """
    if isinstance(options, (str, bytes)):
        raise TypeError("options are a list of words")
    words = [os.fsencode(target), b"--self", str(self_pid).encode()]
    if packs is not None:
        words += [b"--packs", os.fsencode(packs)]
    words += [os.fsencode(option) for option in options]
    return Machine(words, os.fsdecode(target))
