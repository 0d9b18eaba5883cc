"""Virtuoso's answers as plugins of Volatility 3: no symbol file is needed.

    vol -p crates/python/volatility -f guest.elf virtuoso.PsList
    vol -p crates/python/volatility -f guest.elf virtuoso.Files --path /proc/1 --packs packs

The dump's own kernel answers, by a pack as `virtuoso train` makes it; what could not be read or
verified is said on standard error. The Python module `virtuoso` has to be installed.
"""

import hashlib
import logging
import os
import stat
import urllib.parse
import urllib.request
from typing import Any, Iterator, List, Tuple

from volatility3.framework import exceptions, interfaces, renderers
from volatility3.framework.configuration import requirements
from volatility3.framework.renderers import format_hints

# This file is itself called virtuoso, in another package.
import virtuoso as module
from virtuoso import _bytes, _shown

log = logging.getLogger(__name__)

# The most of one file that is recovered: some in /proc and /dev have no end.
MOST_RECOVERED = 256 << 20


def _or_absent(value: Any) -> Any:
    if value is None:
        return renderers.NotAvailableValue()
    return _shown(value) if isinstance(value, str) else value


class _Plugin(interfaces.plugins.PluginInterface):
    """What all of them share: the dump that Volatility was given, opened by Virtuoso."""

    _required_framework_version = (2, 0, 0)
    _version = (1, 0, 0)

    @classmethod
    def get_requirements(cls) -> List[interfaces.configuration.RequirementInterface]:
        return [
            requirements.StringRequirement(
                name="packs", optional=True, description="Directory of packs; default: the user's"
            )
        ]

    def _open(self) -> module.Machine:
        location = self.context.config["automagic.LayerStacker.single_location"]
        parts = urllib.parse.urlparse(location)
        if parts.scheme != "file":
            raise exceptions.VolatilityException(f"{location}: Virtuoso opens files only")
        path = urllib.request.url2pathname(parts.path)
        try:
            return module.open(path, packs=self.config.get("packs"))
        except module.Error as error:
            raise exceptions.VolatilityException(str(error)) from None

    def _rows(self, table: module.Table) -> Iterator[dict]:
        for remark in table.remarks:
            log.warning("%s", _shown(remark))
        for row in table:
            for error in row.get("errors") or [row.get("error")]:
                if error:
                    log.warning("%s", _shown(error))
            yield row

    def _answer(self, ask: Any) -> Any:
        with self._open() as machine:
            try:
                return ask(machine)
            except module.Error as error:
                raise exceptions.VolatilityException(str(error)) from None


class PsList(_Plugin):
    """Lists the processes, as the machine's own kernel does."""

    def _generator(self) -> Iterator[Tuple[int, tuple]]:
        for row in self._rows(self._answer(lambda machine: machine.processes())):
            command = row.get("command")
            values = [row["pid"], row.get("ppid"), row.get("euid"), row.get("name"), row.get("path")]
            values += [" ".join(command) if command else None, row.get("start")]
            yield 0, tuple(map(_or_absent, values))

    def run(self) -> renderers.TreeGrid:
        columns = [("PID", int), ("PPID", int), ("UID", int), ("COMM", str), ("Path", str)]
        columns += [("Command", str), ("Start", str)]
        return renderers.TreeGrid(columns, self._generator())


class Lsmod(_Plugin):
    """Lists the loaded kernel modules."""

    def _generator(self) -> Iterator[Tuple[int, tuple]]:
        for row in self._rows(self._answer(lambda machine: machine.modules())):
            yield 0, (format_hints.Hex(row["base"]), _or_absent(row.get("name")))

    def run(self) -> renderers.TreeGrid:
        return renderers.TreeGrid([("Base", format_hints.Hex), ("Name", str)], self._generator())


class Sockets(_Plugin):
    """Lists the sockets of all network namespaces, with the processes that hold them."""

    def _generator(self) -> Iterator[Tuple[int, tuple]]:
        def end(address: Any) -> Any:
            if isinstance(address, dict) and "address" in address:
                return f"{address['address']}:{address.get('port')}"
            if isinstance(address, dict) and "path" in address:
                return address["path"]
            return None if address is None else str(address)

        for row in self._rows(self._answer(lambda machine: machine.sockets())):
            holders = ", ".join(f"{it['name']} ({it['pid']})" for it in row.get("processes") or [])
            values = [row.get("protocol"), end(row.get("local")), end(row.get("remote")), row.get("state")]
            values += [row.get("namespace"), row.get("inode"), holders or None]
            yield 0, tuple(map(_or_absent, values))

    def run(self) -> renderers.TreeGrid:
        columns = [("Protocol", str), ("Local", str), ("Remote", str), ("State", str)]
        columns += [("Namespace", int), ("Inode", int), ("Processes", str)]
        return renderers.TreeGrid(columns, self._generator())


class Files(_Plugin):
    """Lists a directory of the machine with all below it; --dump recovers the regular files."""

    @classmethod
    def get_requirements(cls) -> List[interfaces.configuration.RequirementInterface]:
        return super().get_requirements() + [
            requirements.StringRequirement(
                name="path", optional=True, default="/", description="Directory or file to list"
            ),
            requirements.BooleanRequirement(
                name="dump", optional=True, default=False, description="Recover the regular files"
            ),
        ]

    def _recovered(self, machine: module.Machine, path: str) -> Any:
        name = path.strip("/").replace("/", "_") or "root"
        if len(_bytes(name)) > 200:
            name = f"{hashlib.sha256(_bytes(path)).hexdigest()[:16]}_{name[-40:]}"
        file, written = self.open(name), 0
        try:
            with file:
                for piece in machine._pieces(_bytes(path), 0, MOST_RECOVERED + 1):
                    file.write(piece)
                    written += len(piece)
        except (module.Error, OSError) as error:
            log.warning("%s: recovered to %d bytes only: %s", _shown(path), written, _shown(error))
        if written > MOST_RECOVERED:
            log.warning("%s: it goes past %d bytes, and was cut off there", _shown(path), MOST_RECOVERED)
        # Only now it has its name, which may have a number where there was one already.
        return file.preferred_filename

    def _one(self, machine: module.Machine, path: str) -> Tuple[int, tuple]:
        try:
            it = machine.lstat(path)
        except module.Error as error:
            log.warning("%s", _shown(error))
            return 0, (_shown(path), *[renderers.UnreadableValue()] * 5)
        file = None
        if self.config["dump"] and stat.S_ISREG(it.st_mode):
            file = self._recovered(machine, path)
        values = [path, stat.filemode(it.st_mode), it.st_size, it.st_uid, it.st_ino, file]
        return 0, tuple(map(_or_absent, values))

    def _generator(self) -> Iterator[Tuple[int, tuple]]:
        top = self.config["path"]
        with self._open() as machine:
            yield self._one(machine, top)
            tell = lambda error: log.warning("%s", _shown(error))
            for at, directories, files in machine.walk(top, tell):
                for name in sorted(directories + files):
                    yield self._one(machine, os.path.join(at, name))

    def run(self) -> renderers.TreeGrid:
        columns = [("Path", str), ("Mode", str), ("Size", int), ("UID", int), ("Inode", int)]
        return renderers.TreeGrid([*columns, ("File", str)], self._generator())
