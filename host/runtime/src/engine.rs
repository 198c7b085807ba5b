//! The one wasmtime engine of a process, every setting with its reason, and the ticker that lets spinning guests be
//! stopped.
//!
//! What a component may *contain* is decided here; what it may *import* is decided in `linker.rs`, what it may *use* in
//! `state.rs`.

use std::hash::{Hash as _, Hasher as _};

use dovetail_core::executor::HostError;
use dovetail_core::limits::Limits;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, ModuleVersionStrategy, PoolingAllocationConfig};

use crate::outcome::host_error;

/// Native stack that a guest may use, in bytes. Tasks are linked with a 256 KiB shadow stack; this one holds calls and
/// spilled registers.
pub(crate) const WASM_STACK: usize = 512 << 10;
/// Elements of all the tables of one core module: a Rust guest has some hundreds, a Python one 6,000.
pub(crate) const TABLE_ELEMENTS: usize = 20_000;
/// Linear memories of one component.
pub(crate) const MEMORIES: u32 = 8;
/// Tables of one component.
pub(crate) const TABLES: u32 = 16;
/// Core instances of one component.
pub(crate) const CORE_INSTANCES: u32 = 64;

/// Written into compiled code, so that code of another wasmtime or of another arrangement of ours is compiled anew: by
/// default only the major version is compared, and code from before a security fix of the compiler would still load.
const CODE_VERSION: &str = "48.0.8+dovetail1";

/// How instances get their memory. It has no influence on the compiled code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allocation {
    /// From slots reserved once, for this many attempts at a time.
    Pooled { attempts: u32 },
    /// Mapped anew for every instance: for processes that compile only, or that have little address space.
    OnDemand,
}

/// An engine with `attempts` slots, or one without slots where the address space does not suffice for them.
pub(crate) fn engine(attempts: u32) -> Result<Engine, HostError> {
    match build(Allocation::Pooled { attempts }) {
        Ok(engine) => Ok(engine),
        Err(error) => {
            tracing::warn!(
                error = format!("{error:#}"),
                attempts,
                "no address space for pooled instances: each attempt maps its own memory, which is slower"
            );
            plain_engine()
        }
    }
}

/// An engine without slots: for compiling, and for attempts where there is no address space for slots.
pub(crate) fn plain_engine() -> Result<Engine, HostError> {
    build(Allocation::OnDemand).map_err(|error| host_error("make the WebAssembly engine", false, error))
}

/// Names everything that compiled code depends on apart from the component itself: 16 hex digits.
pub(crate) fn code_key(engine: &Engine) -> String {
    let mut hasher = std::hash::DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn build(allocation: Allocation) -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        // Calls are 2.5 to 4 times cheaper without it, and the whole surface of async components is gone; tasks are
        // WASI 0.2.
        .concurrency_support(false)
        // A guest that never calls the host must be stoppable; fuel would cost 20 % instead of 5 %.
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK)
        // Proposals that no toolchain of ours emits: less to validate, less to get wrong. (Threads, GC, exceptions and
        // function references are not even compiled in.)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_relaxed_simd(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        .wasm_stack_switching(false)
        // The same input gives the same bits on every worker, NaNs included.
        .cranelift_nan_canonicalization(true)
        .module_version(ModuleVersionStrategy::Custom(CODE_VERSION.to_owned()))?;
    if let Allocation::Pooled { attempts } = allocation {
        let mut pool = PoolingAllocationConfig::default();
        pool.total_component_instances(attempts)
            // Every attempt may be at a component of the largest size: what one holds is never missing for another.
            .total_core_instances(attempts.saturating_mul(CORE_INSTANCES))
            // More slots than live components: a slot that is reused by its own component needs no new mapping (7 us
            // instead of 57).
            .total_memories(attempts.saturating_mul(MEMORIES).max(32))
            .total_tables(attempts.saturating_mul(TABLES).max(64))
            .max_core_instances_per_component(CORE_INSTANCES)
            .max_memories_per_component(MEMORIES)
            .max_tables_per_component(TABLES)
            .max_component_instance_size(4 << 20)
            .max_core_instance_size(4 << 20)
            .max_memory_size(usize::try_from(Limits::MAXIMA.memory).unwrap_or(usize::MAX))
            .table_elements(TABLE_ELEMENTS)
            // Cleared by writing zeroes instead of a system call: it must cover a task's whole initial memory (256 KiB
            // of stack and its data), else page faults eat up the gain.
            .linear_memory_keep_resident(512 << 10)
            .table_keep_resident(64 << 10);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    Engine::new(&config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_the_compiling_process_fits_the_pooled_engine() {
        let pooled = build(Allocation::Pooled { attempts: 2 }).unwrap();
        assert_eq!(code_key(&pooled), code_key(&plain_engine().unwrap()));
    }
}
