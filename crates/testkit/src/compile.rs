//! Compilers as commands: a product appears under its name when it is complete, and a failure says
//! what the compiler said.

use std::path::Path;
use std::process::Command;

use crate::{Error, Result, layout};

/// For 32-bit code on the bare machine or under a system without a C library, that uses no vector
/// registers.
pub(crate) const BARE: &str = "-m32 -march=i686 -O2 -ffreestanding -nostdlib -static -no-pie -fno-pie \
    -fno-stack-protector \
                               -mgeneral-regs-only -fno-asynchronous-unwind-tables -Wl,--build-id=none \
                               -Wl,-z,noexecstack -Wall -Wextra -Wno-main";

/// Has the command that `command` makes for an unfinished file write `product`.
pub(crate) fn compile(product: &Path, command: impl FnOnce(&Path) -> Result<Command>) -> Result<()> {
    if let Some(parent) = product.parent() {
        std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
    }
    let part = layout::part_name(product);
    let mut command = command(&part)?;
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|_| Error::Missing { what: program.clone() })?;
    if !output.status.success() {
        return Err(Error::Command {
            program: format!("{program} -o {}", product.display()),
            status: output.status.to_string(),
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    std::fs::rename(&part, product).map_err(Error::io(product))
}
