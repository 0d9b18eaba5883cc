"""A machine's files for what reads by URL (fsspec: pandas, pyarrow and others).

    pandas.read_csv("virtuoso:///etc/passwd", sep=":", header=None,
                    storage_options={"target": "guest.elf"})
"""

from __future__ import annotations

import os
import stat
from typing import Any

from fsspec.spec import AbstractFileSystem

from . import Error, Machine
from . import open as _open

_KINDS = {stat.S_IFDIR: "directory", stat.S_IFREG: "file", stat.S_IFLNK: "link"}


class VirtuosoFileSystem(AbstractFileSystem):
    """The files of one dump or live guest."""

    protocol = "virtuoso"
    root_marker = "/"
    # A machine that was closed, or a dump that was replaced, must not come again.
    cachable = False

    def __init__(self, target: Any, packs: Any = None, self_pid: int = 1, options: Any = (), **more: Any):
        super().__init__(**more)
        if str(target).startswith(("qmp:", "libvirt:")):
            raise ValueError("a live guest would stand still without an end: use virtuoso.open in a with")
        self.machine: Machine = _open(target, packs, self_pid=self_pid, options=options)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        path = super()._strip_protocol(path)
        return path if isinstance(path, list) or path.startswith("/") else "/" + path

    def info(self, path: str, **_: Any) -> dict:
        path = self._strip_protocol(path)
        it = self.machine.lstat(path)
        kind = _KINDS.get(stat.S_IFMT(it.st_mode), "other")
        found = {
            "name": path, "size": it.st_size, "type": kind, "islink": kind == "link",
            "mode": it.st_mode, "uid": it.st_uid, "gid": it.st_gid, "mtime": it.st_mtime,
            "ino": it.st_ino, "nlink": it.st_nlink,
        }
        if kind == "link":
            found["destination"] = self.machine.readlink(path)
        elif kind == "file" and it.st_blocks == 0:
            # Files like procfs's and sysfs's have no size, or one that is not theirs.
            found["size"] = None
        return found

    def ls(self, path: str, detail: bool = True, **_: Any) -> list:
        path = self._strip_protocol(path)
        if not self.isdir(path):
            return [self.info(path)] if detail else [path]
        names = [os.path.join(path, name) for name in self.machine.listdir(path)]
        return [self._info_or_error(name) for name in names] if detail else names

    def _info_or_error(self, path: str) -> dict:
        try:
            return self.info(path)
        except Error as error:
            # A process that is about to end, memory that is missing.
            return {"name": path, "size": None, "type": "other", "error": str(error)}

    def exists(self, path: str, **_: Any) -> bool:
        return self.machine.exists(self._strip_protocol(path))

    def isdir(self, path: str) -> bool:
        return self.machine.path(self._strip_protocol(path)).is_dir()

    def isfile(self, path: str) -> bool:
        return self.machine.path(self._strip_protocol(path)).is_file()

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        path = self._strip_protocol(path)
        # Places from the end need all of it.
        if (start or 0) < 0 or (end or 0) < 0:
            return self.machine.read_bytes(path)[slice(start, end)]
        size = None if end is None else max(0, end - (start or 0))
        return self.machine.read_bytes(path, start or 0, size)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        return self.machine.open(self._strip_protocol(path), mode)
