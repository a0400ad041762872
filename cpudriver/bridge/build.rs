//! Hands the linker script to the linker, for the bare-metal binary only.

fn main() {
    let directory = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    println!("cargo:rerun-if-changed=link.ld");
    let target = std::env::var("CARGO_CFG_TARGET_OS").expect("cargo sets CARGO_CFG_TARGET_OS");
    if target == "none" {
        // The target's default is a position independent executable, which would want
        // somebody to relocate it; the bridge is linked where it runs.
        println!("cargo:rustc-link-arg-bins=--no-pie");
        println!("cargo:rustc-link-arg-bins=-T{directory}/link.ld");
    }
}
