//! The `virtuoso` command.

#![forbid(unsafe_code)]

/// Short commands spend a third of their time on the first use of memory, 4 KiB at a time; this
/// allocator asks for larger pages where the host has them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    virtuoso_cli::main()
}
