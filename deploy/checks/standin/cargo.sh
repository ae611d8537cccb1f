#!/bin/sh
set -e
echo "cargo $*"
ls Cargo.toml Cargo.lock README.md src/lib.rs examples/demo benches/Cargo.toml >/dev/null
[ ! -e .git ] && [ ! -e target/debug ]
mkdir -p target/release/examples
cp /prebuilt/demo target/release/examples/demo
