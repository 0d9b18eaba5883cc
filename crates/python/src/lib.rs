//! The native part of the Python module `virtuoso`: a target that stays open, and its answers as
//! Python's own values.
//!
//! Everything that needs no Rust is Python (`python/virtuoso`): paths, files as objects, walking,
//! file systems for other libraries. Questions wait without the interpreter's lock, so that other
//! threads run on. Structured answers cross as JSON, in the form that the verbs' `--json` has.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use filetree::{Attributes, Time};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use virtuoso_cli::{Failed, Handle};

pyo3::create_exception!(_virtuoso, Failure, PyException, "code, errno, message: why there is no answer.");

/// The exception with what a failure is made of; the Python part makes its own of it.
fn failure(failed: Failed) -> PyErr {
    Failure::new_err((failed.code, failed.errno, failed.text))
}

/// A target that stays open.
#[pyclass(frozen)]
struct Target {
    handle: Handle,
}

/// An entry of a directory: name, the kind's letter as `ls -l` has it, number.
type Row<'py> = (Bound<'py, PyBytes>, char, u64);

/// What `stat` says: mode, inode, device, links, user, group, size, blocks, block size, the device
/// that it is, mount, and times of reading, change of bytes, change of attributes and making, in
/// nanoseconds since 1970.
type Stat = (u16, u64, (u32, u32), u32, u32, u32, u64, u64, u32, (u32, u32), Option<u64>, Times);
type Times = (i128, i128, i128, Option<i128>);

#[pymethods]
impl Target {
    /// Opens a target with a verb's words, as bytes.
    #[new]
    fn open(py: Python<'_>, words: Vec<Vec<u8>>) -> PyResult<Self> {
        let words: Vec<OsString> = words.into_iter().map(OsString::from_vec).collect();
        let handle = py.detach(|| Handle::open(&words)).map_err(failure)?;
        Ok(Self { handle })
    }

    fn entries<'py>(&self, py: Python<'py>, path: Vec<u8>) -> PyResult<Vec<Row<'py>>> {
        let entries = py.detach(|| self.handle.entries(&path)).map_err(failure)?;
        Ok(entries.into_iter().map(|it| (PyBytes::new(py, &it.name), it.kind.letter(), it.inode)).collect())
    }

    fn stat(&self, py: Python<'_>, path: Vec<u8>, follow: bool) -> PyResult<Stat> {
        py.detach(|| self.handle.attributes(&path, follow)).map(stat).map_err(failure)
    }

    fn link<'py>(&self, py: Python<'py>, path: Vec<u8>) -> PyResult<Bound<'py, PyBytes>> {
        let link = py.detach(|| self.handle.link(&path)).map_err(failure)?;
        Ok(PyBytes::new(py, &link))
    }

    /// Bytes from an offset on, and whether the file ends behind them.
    fn read<'py>(
        &self,
        py: Python<'py>,
        path: Vec<u8>,
        offset: u64,
        length: u32,
    ) -> PyResult<(Bound<'py, PyBytes>, bool)> {
        let content = py.detach(|| self.handle.read(&path, offset, length)).map_err(failure)?;
        Ok((PyBytes::new(py, &content.bytes), content.end))
    }

    fn processes(&self, py: Python<'_>, brief: bool) -> PyResult<String> {
        py.detach(|| self.handle.processes(brief)).map(|it| it.to_string()).map_err(failure)
    }

    fn modules(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| self.handle.modules()).map(|it| it.to_string()).map_err(failure)
    }

    fn sockets(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| self.handle.sockets()).map(|it| it.to_string()).map_err(failure)
    }

    fn open_files(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| self.handle.open_files()).map(|it| it.to_string()).map_err(failure)
    }

    fn run(&self, py: Python<'_>, program: String, inputs: Vec<(String, String)>) -> PyResult<String> {
        py.detach(|| self.handle.run(&program, &inputs)).map(|it| it.to_string()).map_err(failure)
    }

    /// Lets a live guest run again; where runs did not follow the target, in words.
    fn close(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        py.detach(|| self.handle.close()).map_err(failure)
    }
}

fn stat(it: Attributes) -> Stat {
    let at = |time: Time| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    let times = (at(it.accessed), at(it.modified), at(it.changed), it.born.map(at));
    let Attributes {
        mode, inode, device, links, user, group, size, blocks, block_size, special, mount, ..
    } = it;
    (mode, inode, device, links, user, group, size, blocks, block_size, special, mount, times)
}

/// Runs the command with these words, its own name first; the exit code. So this interpreter can be
/// the process that watches over the pause of a live guest.
#[pyfunction]
fn run(py: Python<'_>, words: Vec<Vec<u8>>) -> u8 {
    py.detach(|| virtuoso_cli::run(words.into_iter().map(OsString::from_vec)))
}

/// Says how this interpreter is started to do that: program and words, to which those of the
/// command are added.
#[pyfunction]
fn started_by(program: Vec<u8>, words: Vec<Vec<u8>>) {
    let words = words.into_iter().map(OsString::from_vec).collect();
    virtuoso_cli::started_by(OsString::from_vec(program).into(), words);
}

#[pymodule]
fn _virtuoso(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Target>()?;
    module.add_function(wrap_pyfunction!(run, module)?)?;
    module.add_function(wrap_pyfunction!(started_by, module)?)?;
    module.add("Failure", module.py().get_type::<Failure>())
}
