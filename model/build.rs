//! Leaves the unit tests of the library's files to the library, since they do not work under the model checker.

fn main() {
    println!("cargo::rustc-cfg=model");
}
