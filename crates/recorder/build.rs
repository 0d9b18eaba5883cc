//! The plugin's undefined symbols (`qemu_plugin_*`, glib) are QEMU's own; they resolve when QEMU
//! loads it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,undefs");
}
