//! Static calls of the real `kvm`: which functions its trampolines may lead to, by the files of the
//! kernels' packages.
//!
//! Runs only with `VIRTUOSO_E2E=1`, for which set-up has fetched the kernels.

use std::collections::BTreeSet;

use ir::relocatable::Symbol;
use linux::{Exports, Linker};
use testkit::kernel::{DEFAULT, Kernel};

#[test]
fn kvm_calls_what_its_users_have_in_the_same_field() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::var_os("VIRTUOSO_E2E").is_none() {
        eprintln!("skipped: needs kernel packages; set VIRTUOSO_E2E=1 (cargo xtask test does)");
        return Ok(());
    }
    let kernel = Kernel::find(DEFAULT)?;
    let proper = linux::kernel_proper(&std::fs::read(&kernel.image)?).ok_or("the kernel proper")?;
    let exports = Exports::read(&proper).ok_or("a table of symbols")?;
    let mut linker = Linker::default();
    for module in kernel.modules.load_order(&["kvm_amd", "kvm_intel"])? {
        assert!(linker.add(&module), "{}", module.name);
    }
    let objects = linker.link(&exports);
    let name = |number: u32| objects.get(number as usize).map_or("nobody", |it| it.name.as_str());
    let owner = objects.iter().find(|it| it.name == "kvm").ok_or("kvm")?;
    let (mut by_both, mut most) = (0, 0);
    for trampoline in &owner.trampolines {
        let mut users = BTreeSet::new();
        for (symbol, _) in &trampoline.functions {
            match owner.symbols[usize::from(*symbol)] {
                Symbol::Other { object, .. } => drop(users.insert(name(object))),
                // It has a few itself, and the kernel has one that returns 0.
                Symbol::Own(_) | Symbol::System(_) => {}
                other => return Err(format!("{other:?}").into()),
            }
        }
        assert!(users.iter().all(|it| ["kvm_amd", "kvm_intel"].contains(it)), "{users:?}");
        by_both += usize::from(users.len() == 2);
        most = most.max(trampoline.functions.len());
    }
    eprintln!("{} trampolines, {by_both} with functions of both, {most} at most", owner.trampolines.len());
    assert!(by_both >= 90 && most <= 4, "{by_both} {most}");
    Ok(())
}
