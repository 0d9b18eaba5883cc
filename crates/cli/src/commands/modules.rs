//! `virtuoso modules`: adds the code of a kernel's modules to a pack.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::train::modules;
use crate::{files, format, output};

/// Add the code of a kernel's modules to a pack
///
/// `virtuoso train` does that with --modules. This verb is for packs that were made without, and
/// for modules that do not come with the kernel. Whole runs may then execute the code of any of
/// these modules, wherever a target has loaded it: the trusted file's, never the target's. What the
/// pack had of modules before is replaced.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso modules packs/6.1 --kernel vmlinuz-6.1.0-56-amd64 --modules lib/modules/6.1.0-56-amd64
  virtuoso modules packs/6.1 --kernel vmlinuz-6.1.0-56-amd64 --modules lib/modules/6.1.0-56-amd64 \\
      --modules zfs/built")]
pub struct ModulesArgs {
    /// The pack, a directory made by `virtuoso train`
    #[arg(value_name = "PACK")]
    pack: PathBuf,
    /// The kernel image that it was trained with
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// Directory with modules of that kernel; may be given several times
    #[arg(long, value_name = "DIR", required = true)]
    modules: Vec<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl ModulesArgs {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        let image = files::read(&self.kernel, "kernel image (vmlinuz)")?;
        let written = context.progress.during("linking the modules", || {
            modules::write(&self.pack, (&self.kernel, &image), &self.modules)
        })?;
        remark(&written, context);
        if self.json {
            output::json(&json!({ "file": engine::Text::of_path(&written.path), "modules": written.modules,
                "bytes": written.bytes, "lacking": written.lacking, "foreign": written.foreign }))
        } else {
            let mut out = output::stdout();
            writeln!(out, "{}: {}", written.path.display(), format::counted(written.modules, "module"))?;
            Ok(out.flush()?)
        }
    }
}

/// Says of which modules something is missing.
pub fn remark(written: &modules::Written, context: Context) {
    if context.quiet {
        return;
    }
    if !written.lacking.is_empty() {
        output::note(&format!(
            "parts of {} will not be executed, for they name what neither kernel nor modules have: {}",
            format::counted(written.lacking.len(), "module"),
            written.lacking.join(", ")
        ));
    }
    if !written.foreign.is_empty() {
        output::note(&format!("these files are no modules: {}", written.foreign.join(", ")));
    }
}
