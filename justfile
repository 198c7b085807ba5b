# Every recipe sets up what it needs. `./justw` runs this file and gets `just` where it is missing.

# What there is to do
default:
    @just --list

# The face pipeline on six real photographs: sets everything up, prints what it found, draws it to target/demo/
demo:
    @scripts/setup
    @scripts/demo

# Everything: format, lints, unit, conformance, runtime, vision against the reference, pipelines, CLI, the house's rules
test:
    @scripts/setup --test
    @scripts/test

# System packages, Rust targets, models and photographs
setup:
    @scripts/setup --test

# The sandboxed tasks (plugins/) as components
plugins:
    @scripts/plugins

# Compile without producing anything: the quickest answer while thinking
check:
    cargo check --release --workspace --all-targets

# Format all the code
fmt:
    cargo fmt --all
    cd plugins && cargo fmt --all
