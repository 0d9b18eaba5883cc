//! The `virtuoso` command.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    virtuoso_cli::main()
}
