"""The module over a captured guest, compared with what that guest said of itself.

`crates/cli/tests/files.rs` runs this with VIRTUOSO_TRUTH: a JSON file that names the target, its
packs, and what the guest's own tools said: files, processes, modules.
"""

import hashlib
import io
import json
import os
import pickle
import re
import stat
import subprocess
import sys
import tempfile
import threading
import unittest

import virtuoso

with open(os.environ["VIRTUOSO_TRUTH"]) as file:
    TRUTH = json.load(file)

# What a dump has no answer for: memory that is not in it, devices, locks, code that nobody knows.
NAMED = {12, 13, 14, 16, 17}
# How much of a file the truth is about.
MOST_HASHED = 1 << 20


def open_target():
    return virtuoso.open(TRUTH["target"], packs=TRUTH["packs"])


class Answers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.machine = open_target()

    @classmethod
    def tearDownClass(cls):
        cls.machine.close()

    def test_files_are_what_the_guest_says(self):
        equal, named = 0, []
        for path, told in TRUTH["files"].items():
            try:
                found = self.machine.lstat(path)
                if told["kind"] == "DATA":
                    # The guest's tools hashed no more of it.
                    content = self.machine.read_bytes(path, 0, MOST_HASHED)
                elif told["kind"] == "LINK":
                    content = os.fsencode(self.machine.readlink(path)) + b"\n"
                else:
                    continue
            except virtuoso.Error as error:
                self.assertIn(error.code, NAMED, f"{path}: {error}")
                named.append(path)
                continue
            numbers = [f"{found.st_mode:x}", str(found.st_uid), str(found.st_gid), str(found.st_nlink)]
            numbers += [str(found.st_size), str(found.st_blocks), str(found.st_ino)]
            self.assertEqual(numbers, told["stat"][:7], path)
            self.assertEqual(hashlib.sha256(content).hexdigest(), told["hash"], path)
            equal += 1
        self.assertGreater(equal, 40)
        self.assertLess(len(named), 7, named)

    def test_processes_and_modules_are_all_there(self):
        processes = self.machine.processes()
        self.assertEqual({row["pid"] for row in processes}, set(TRUTH["pids"]))
        first = next(row for row in processes if row["pid"] == 1)
        self.assertEqual(first["command"][:2], TRUTH["command"])
        brief = self.machine.processes(brief=True)
        self.assertEqual([row["pid"] for row in brief], [row["pid"] for row in processes])
        self.assertNotIn("command", brief[0])
        modules = self.machine.modules()
        self.assertEqual({(row["base"], row["name"]) for row in modules}, {tuple(it) for it in TRUTH["modules"]})
        self.assertIsInstance(processes.verified, bool)

    def test_sockets_and_open_files_name_their_holders(self):
        inodes = {row["inode"] for row in self.machine.sockets()}
        # A name may hold what looks like another line.
        told = re.findall(rb"^[0-9a-f]+: (?:[0-9A-F]+ ){5} *(\d+)", self.machine.read_bytes("/proc/1/net/unix"), re.M)
        self.assertLessEqual({int(inode) for inode in told}, inodes)
        self.assertGreater(len(told), 3)
        files = self.machine.open_files()
        (held,) = [row for row in files if row["pid"] == int(TRUTH["held"])]
        self.assertTrue(any(file["deleted"] and file["descriptor"] == 3 for file in held["files"]), held)

    def test_programs_answer_with_their_inputs(self):
        answer = self.machine.run("getpsfile", pid=1)
        self.assertEqual((answer["rc"] > 0, answer["path"]), (True, TRUTH["executable"]))
        self.assertIn("sec", self.machine.run("gettime"))
        with self.assertRaises(virtuoso.Error) as caught:
            self.machine.run("getpsfile", nobody=1)
        self.assertEqual(caught.exception.code, 1)
        with self.assertRaises(virtuoso.Error) as caught:
            self.machine.run("nothing")
        self.assertIn("no such program", str(caught.exception))

    def test_files_are_read_like_files(self):
        path = f"/proc/{TRUTH['held']}/maps"
        whole = self.machine.read_bytes(path)
        with self.machine.open(path, "rb") as file:
            self.assertEqual(file.read(), whole)
            self.assertEqual(file.seek(-10, io.SEEK_END), len(whole) - 10)
            self.assertEqual(file.read(), whole[-10:])
            file.seek(5)
            self.assertEqual(file.read(7), whole[5:12])
        with self.machine.open(path) as file:
            self.assertEqual(file.readlines(), whole.decode().splitlines(keepends=True))
        self.assertEqual(self.machine.read_bytes(path, 3, 9), whole[3:12])
        with self.assertRaises(ValueError):
            self.machine.open(path, "w")
        deleted = self.machine.read_bytes(f"/proc/{TRUTH['held']}/fd/3")
        self.assertEqual(deleted, b"deleted and still open\n")
        many = self.machine.listdir("/tmp/many")
        self.assertEqual((len(many), len(set(many))), (9000, 9000))

    def test_paths_are_like_those_of_pathlib(self):
        root = self.machine.path()
        process = root / "proc" / TRUTH["held"]
        self.assertEqual(str(process / "comm"), f"/proc/{TRUTH['held']}/comm")
        self.assertTrue(process.is_dir() and (process / "comm").is_file() and (process / "exe").is_symlink())
        self.assertFalse((root / "nothing here").exists())
        self.assertIn("comm", {it.name for it in process.iterdir()})
        self.assertEqual((process / "comm").parent, process)
        self.assertEqual([it.is_dir() for it in (process / "comm").parents], [True] * 3)
        self.assertEqual(process.joinpath("comm").with_name("stat").stat().st_mode & 0o777, 0o444)
        self.assertEqual(str((process / "exe").readlink()), TRUTH["held_executable"])
        self.assertEqual([str(it) for it in process.glob("com*")], [str(process / "comm")])
        self.assertTrue((process / "status").read_text().startswith("Name:"))

    def test_trees_are_walked_and_searched(self):
        top = f"/proc/{TRUTH['held']}"
        walked = {os.path.join(at, name) for at, _, files in self.machine.walk(top) for name in files}
        self.assertIn(top + "/fdinfo/3", walked)
        found = set(self.machine.glob(top + "/**/3"))
        self.assertEqual(found & walked, {path for path in walked if path.endswith("/3")})
        self.assertLessEqual({top + "/fd/3", top + "/fdinfo/3"}, found)
        self.assertEqual(list(self.machine.glob("/proc/[0-9]/comm"))[:1], ["/proc/1/comm"])
        failed = []
        self.assertEqual(list(self.machine.walk("/nothing here", failed.append)), [])
        self.assertIsInstance(failed[0], FileNotFoundError)

    def test_what_is_not_there_raises_what_python_raises(self):
        for ask in (self.machine.stat, self.machine.listdir, self.machine.read_bytes, self.machine.readlink):
            with self.assertRaises(FileNotFoundError) as caught:
                ask("/nothing here")
            self.assertIsInstance(caught.exception, virtuoso.Error)
            self.assertEqual((caught.exception.errno, caught.exception.code), (2, 35))
        with self.assertRaises(NotADirectoryError):
            self.machine.listdir("/proc/1/comm")
        with self.assertRaises(IsADirectoryError):
            self.machine.read_bytes("/proc/1")
        self.assertFalse(self.machine.exists("/proc/1/comm/deeper"))

    def test_a_path_is_none_of_this_machine(self):
        for ask in (open, os.stat, os.fspath):
            with self.assertRaises(TypeError):
                ask(self.machine.path("/etc/passwd"))
        with open_target() as other:
            self.assertNotEqual(self.machine.path("/proc"), other.path("/proc"))
        self.assertEqual({self.machine.path("/proc"), self.machine.path("/proc")}, {self.machine.path("/proc")})
        self.assertEqual(self.machine.listdir(self.machine.path("/proc/1/fdinfo")), self.machine.listdir("/proc/1/fdinfo"))

    def test_what_has_no_end_is_not_read_to_it(self):
        try:
            # The guest gives the same there at every place.
            self.machine.read_bytes("/proc/kmsg")
        except virtuoso.Error as error:
            self.assertIn(error.code, NAMED | {35})
        self.assertEqual(self.machine.read_bytes("/proc/version", 0, -1), self.machine.read_bytes("/proc/version"))
        for wrong in (lambda: self.machine.read_bytes("/proc/version", -1), lambda: self.machine.stat("/a\0")):
            self.assertRaises(ValueError, wrong)

    def test_errors_cross_to_other_processes(self):
        with self.assertRaises(virtuoso.Error) as caught:
            self.machine.stat("/nothing here")
        for error in (caught.exception, virtuoso.Error(13, "a device")):
            again = pickle.loads(pickle.dumps(error))
            self.assertEqual((type(again), again.code, str(again)), (type(error), error.code, str(error)))

    def test_any_number_of_threads_ask(self):
        wanted = self.machine.read_bytes("/proc/version")
        found = []
        threads = [
            threading.Thread(
                target=lambda: found.extend(self.machine.read_bytes("/proc/version") for _ in range(50))
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(found, [wanted] * 200)


class Handles(unittest.TestCase):
    def test_a_closed_target_says_so(self):
        with open_target() as machine:
            self.assertTrue(stat.S_ISDIR(machine.stat("/").st_mode))
        with self.assertRaisesRegex(virtuoso.Error, "closed"):
            machine.listdir()
        self.assertEqual(machine.close(), [])

    @unittest.skipUnless(hasattr(os, "fork"), "nothing forks here")
    def test_a_forked_process_is_told_to_open_its_own(self):
        with open_target() as machine:
            child = os.fork()
            if child == 0:
                try:
                    machine.listdir()
                except virtuoso.Error:
                    del machine
                    os._exit(7)
                os._exit(1)
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 7)

    def test_what_cannot_be_opened_says_why(self):
        with self.assertRaises(virtuoso.Error) as caught:
            virtuoso.open("/nothing here", packs=TRUTH["packs"])
        self.assertEqual(caught.exception.code, 1)
        with self.assertRaises(virtuoso.Error) as caught:
            virtuoso.open(TRUTH["target"], packs=TRUTH["packs"], options=["--no-such-option"])
        self.assertEqual(caught.exception.code, 2)


class Tables(unittest.TestCase):
    def test_names_that_are_no_text_are_pythons(self):
        row = virtuoso._decoded('{"name": {"bytes": "61ff", "text": "a?"}, "more": {"bytes": 1}}')
        self.assertEqual((os.fsencode(row["name"]), row["more"]), (b"a\xff", {"bytes": 1}))

    def test_what_a_guest_chose_is_no_markup(self):
        table = virtuoso.Table([{"name": "<b>", "pid": 1}, {"pid": 2}], True, ["a & b"], {})
        shown = table._repr_html_()
        self.assertIn("<td>&lt;b&gt;</td><td>1</td>", shown)
        self.assertIn("<td></td><td>2</td>", shown)
        self.assertIn("a &amp; b", shown)

    def test_tables_become_frames(self):
        try:
            import pandas  # noqa: F401
        except ImportError:
            self.skipTest("pandas is not there")
        frame = virtuoso.Table([{"pid": 1}, {"pid": 2}], True, [], {}).to_pandas()
        self.assertEqual(frame["pid"].tolist(), [1, 2])


    def test_tables_keep_what_a_row_has_and_addresses(self):
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            self.skipTest("pyarrow is not there")
        rows = [{"base": 1}, {"base": 0xFFFFFFFFC0000000, "name": "a\udcff", "error": "lost"}]
        table = virtuoso.Table(rows, True, [], {})
        self.assertEqual(table.to_arrow().column_names, ["base", "name", "error"])
        self.assertEqual(table.to_arrow()["base"].to_pylist(), [1, 0xFFFFFFFFC0000000])
        self.assertEqual(table.to_pandas()["name"][1], "a\\udcff")


class Urls(unittest.TestCase):
    def setUp(self):
        try:
            import fsspec
        except ImportError:
            self.skipTest("fsspec is not there")
        from virtuoso.fs import VirtuosoFileSystem

        fsspec.register_implementation("virtuoso", VirtuosoFileSystem, clobber=True)
        self.fsspec, self.options = fsspec, {"target": TRUTH["target"], "packs": TRUTH["packs"]}
        self.files = fsspec.filesystem("virtuoso", **self.options)

    def test_files_are_read_by_url(self):
        whole = self.files.machine.read_bytes("/proc/modules")
        with self.fsspec.open("virtuoso:///proc/modules", "rb", **self.options) as file:
            self.assertEqual(file.read(), whole)
        self.assertEqual(self.files.cat_file("/proc/modules", 3, 30), whole[3:30])
        self.assertEqual(self.files.cat_file("/proc/modules", -5), whole[-5:])
        self.assertEqual(self.files.info("/proc")["type"], "directory")
        self.assertIn("/proc/1/comm", self.files.ls("/proc/1", detail=False))
        self.assertIn("/proc/1/comm", self.files.glob("/proc/1/com*"))
        walked = [top for top, _, _ in self.files.walk("/proc/1")]
        self.assertFalse([top for top in walked if "/cwd/" in top or "/root/" in top])
        self.assertTrue(self.files.isdir("/proc/1/root") and self.files.info("/proc/1/root")["type"] == "link")
        with self.assertRaises(ValueError):
            self.fsspec.filesystem("virtuoso", target="qmp:/nowhere")
        self.assertTrue(self.files.exists("/proc/1") and not self.files.exists("/nothing here"))


class Volatility(unittest.TestCase):
    """The plugins, run by Volatility 3 itself."""

    def setUp(self):
        try:
            import volatility3  # noqa: F401
        except ImportError:
            self.skipTest("volatility3 is not there")

    def run_plugin(self, name, *options, output=None):
        plugins = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "volatility")
        begin = "import sys, volatility3.cli; sys.argv[0] = 'vol'; volatility3.cli.main()"
        words = [sys.executable, "-c", begin, "-q", "-r", "json"]
        words += ["-p", plugins, "-f", TRUTH["target"]] + (["-o", output] if output else [])
        words += ["virtuoso." + name, "--packs", TRUTH["packs"], *options]
        ran = subprocess.run(words, capture_output=True, text=True)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        return json.loads(ran.stdout)

    def test_lists_are_what_the_guest_says(self):
        processes = self.run_plugin("PsList")
        self.assertEqual({row["PID"] for row in processes}, set(TRUTH["pids"]))
        modules = {(row["Base"], row["Name"]) for row in self.run_plugin("Lsmod")}
        self.assertEqual(modules, {tuple(it) for it in TRUTH["modules"]})
        with open_target() as machine:
            self.assertEqual(len(self.run_plugin("Sockets")), len(machine.sockets()))

    def test_files_are_recovered(self):
        with tempfile.TemporaryDirectory() as folder, open_target() as machine:
            rows = self.run_plugin("Files", "--path", "/tmp/disk", "--dump", output=folder)
            regular = [row for row in rows if row["Mode"].startswith("-")]
            self.assertTrue(regular)
            for row in regular:
                with open(os.path.join(folder, row["File"]), "rb") as file:
                    self.assertEqual(file.read(), machine.read_bytes(row["Path"]))


class Notebook(unittest.TestCase):
    def test_the_example_is_executed(self):
        try:
            import fsspec  # noqa: F401
            import nbclient
            import nbformat
            import pandas  # noqa: F401
        except ImportError as missing:
            self.skipTest(f"{missing.name} is not there")
        root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../..")
        notebook = nbformat.read(os.path.join(root, "examples/dump.ipynb"), as_version=4)
        nbformat.validate(notebook)
        os.environ.update(VIRTUOSO_TARGET=TRUTH["target"], VIRTUOSO_PACKS=TRUTH["packs"])
        # Without the wheel's entry point nobody has told fsspec of the scheme.
        known = "import fsspec; fsspec.register_implementation('virtuoso', 'virtuoso.fs.VirtuosoFileSystem', clobber=True)"
        notebook.cells.insert(0, nbformat.v4.new_code_cell(known))
        nbclient.NotebookClient(notebook, timeout=120).execute()
        printed = "".join(str(cell.get("outputs", "")) for cell in notebook.cells)
        for expected in ("Linux version", "35 /nothing here", TRUTH["executable"]):
            self.assertIn(expected, printed)


if __name__ == "__main__":
    unittest.main()
