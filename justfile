# Every recipe installs what it needs. `./justw` runs this file, and installs `just` if it is missing.
# `just --list` shows the line above each recipe.

# List the recipes
default:
    @just --list

# `./justw demo --servers` uses Redis, MongoDB and MinIO, with three workers, of which one is killed.
# Run the face pipeline on six photographs, and draw the results to target/demo/ (`--servers`: on a small fleet)
demo *OPTIONS:
    @scripts/setup
    @scripts/demo {{OPTIONS}}

# Without an option: format, lints, unit tests, conformance suites, runtime, vision against the reference, pipelines,
# the command line, and the rules of ARCHITECTURE.md. `--servers` starts and stops the servers that its tests need.
# Run all tests that need no server (`--servers`: the tests on Redis, MongoDB and S3; `--faults`: the fault tests)
test *OPTIONS:
    @scripts/setup --test
    @scripts/test {{OPTIONS}}

# Install the system packages, Rust targets, models and photographs
setup:
    @scripts/setup --test

# Build the sandboxed tasks (plugins/) as components
plugins:
    @scripts/plugins

# Start or stop Redis, MinIO and a MongoDB stand-in on loopback for tests: `start`, `stop`, `status`, `urls`
servers *ARGS:
    @scripts/servers {{ARGS}}

# Compare Celery and dovetail on the same work; the last line is JSON with the ratios (5 minutes, the first time more)
bench-celery *OPTIONS:
    @scripts/setup
    @scripts/bench-celery {{OPTIONS}}

# Inject faults into a fleet of real workers and servers, and print a table of the results: `[MINUTES] [SEED]`
faults *ARGS:
    @scripts/setup --test
    @scripts/faults {{ARGS}}

# Fuzz packages, component types, values, pipeline files and image headers from a new seed: `[SECONDS]` for each
fuzz *ARGS:
    @scripts/setup --test
    @scripts/fuzz {{ARGS}}

# Test workers of an earlier version beside workers of this version, replaced one by one under load: `COMMIT`
upgrade *ARGS:
    @scripts/setup --test
    @scripts/upgrade {{ARGS}}

# Type-check the workspace without building it
check:
    cargo check --release --workspace --all-targets

# Format all code
fmt:
    cargo fmt --all
    cd plugins && cargo fmt --all
