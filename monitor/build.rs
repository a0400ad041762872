//! Links programs at the address that user programs have.

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../apps/rt/user.ld");
    println!("cargo:rerun-if-changed={script}");
    println!("cargo:rustc-link-arg-bins=-T{script}");
    println!("cargo:rustc-link-arg-bins=--no-pie");
    println!("cargo:rustc-link-arg-bins=-zmax-page-size=4096");
}
