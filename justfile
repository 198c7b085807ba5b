# Every recipe sets up what it needs. `./justw` runs this file and gets `just` where it is missing.

# What there is to do
default:
    @just --list

# The face pipeline on six real photographs, drawn to target/demo/; `demo --servers`: over Redis, MongoDB and MinIO, with three workers, one of which is killed
demo *OPTIONS:
    @scripts/setup
    @scripts/demo {{OPTIONS}}

# Everything: format, lints, unit, conformance, runtime, vision against the reference, pipelines, CLI, the house's rules
# (`./justw test --servers`: the tests that need Redis, MongoDB and S3, on servers that it starts and stops)
test *OPTIONS:
    @scripts/setup --test
    @scripts/test {{OPTIONS}}

# System packages, Rust targets, models and photographs
setup:
    @scripts/setup --test

# The sandboxed tasks (plugins/) as components
plugins:
    @scripts/plugins

# Redis, MinIO and a MongoDB stand-in on loopback, for tests: `start`, `stop`, `status`, `urls`
servers *ARGS:
    @scripts/servers {{ARGS}}

# The same work in Celery and in dovetail, by turns; the last line is JSON with the ratios (about 5 minutes, the first time more)
bench-celery *OPTIONS:
    @scripts/setup
    @scripts/bench-celery {{OPTIONS}}

# Faults on a fleet of real workers and servers, and a table of what came of them: `./justw faults [MINUTES] [SEED]`
faults *ARGS:
    @scripts/setup --test
    @scripts/faults {{ARGS}}

# Packages, component types, values, pipeline files and image headers, each mutated for SECONDS from a new seed: `./justw fuzz [SECONDS]`
fuzz *ARGS:
    @scripts/setup --test
    @scripts/fuzz {{ARGS}}

# Workers of an earlier version (`./justw upgrade COMMIT`) and of this one side by side, replaced one by one under load
upgrade *ARGS:
    @scripts/setup --test
    @scripts/upgrade {{ARGS}}

# Compile without producing anything: the quickest answer while thinking
check:
    cargo check --release --workspace --all-targets

# Format all the code
fmt:
    cargo fmt --all
    cd plugins && cargo fmt --all
