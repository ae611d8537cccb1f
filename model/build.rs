//! Leaves the unit tests of the library's files to the library: they know nothing of the model checker.

fn main() {
    println!("cargo::rustc-cfg=model");
}
