//! This crate has only tests: see `it/`.
