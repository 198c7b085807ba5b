//! The one wasmtime engine of a process, with the reason for every setting.
//!
//! The engine decides what a component may *contain*. `linker.rs` decides what it may *import*, and `state.rs` what it
//! may *use*.

use std::hash::{Hash as _, Hasher as _};

use dovetail_core::executor::HostError;
use dovetail_core::limits::Limits;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, ModuleVersionStrategy, PoolingAllocationConfig};

use crate::outcome::host_error;

/// The native stack of a guest, in bytes. Tasks are linked with a 256 KiB shadow stack; the native stack holds only
/// calls and spilled registers.
pub(crate) const WASM_STACK: usize = 512 << 10;
/// The most table elements of one core module. A Rust guest has some hundreds, a Python guest 6,000.
pub(crate) const TABLE_ELEMENTS: usize = 20_000;
/// The most linear memories of one component.
pub(crate) const MEMORIES: u32 = 8;
/// The most tables of one component.
pub(crate) const TABLES: u32 = 16;
/// The most core instances of one component.
pub(crate) const CORE_INSTANCES: u32 = 64;

/// Written into compiled code, so that code of another wasmtime, or of other settings of this engine, is compiled
/// again. By default wasmtime compares only the major version, so code from before a security fix of the compiler would
/// still load.
const CODE_VERSION: &str = "48.0.8+dovetail1";

/// How instances get their memory. This does not influence the compiled code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allocation {
    /// From slots that are reserved once, for this many concurrent attempts.
    Pooled { attempts: u32 },
    /// Mapped for each instance: for processes that only compile, or that have little address space.
    OnDemand,
}

/// An engine with slots for `attempts` attempts, or without slots if the address space does not suffice.
///
/// # Errors
/// If wasmtime refuses the settings.
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

/// An engine without slots: for compiling, and for attempts without the address space for slots.
///
/// # Errors
/// If wasmtime refuses the settings.
pub(crate) fn plain_engine() -> Result<Engine, HostError> {
    build(Allocation::OnDemand).map_err(|error| host_error("make the WebAssembly engine", false, error))
}

/// A key of everything that compiled code depends on, except the component itself: 16 hex digits.
pub(crate) fn code_key(engine: &Engine) -> String {
    let mut hasher = std::hash::DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn build(allocation: Allocation) -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        // Without it, calls are 2.5 to 4 times cheaper, and async components are excluded. Tasks are WASI 0.2
        // components.
        .concurrency_support(false)
        // A guest that never calls the host must be interruptible. Epochs cost 5 %, fuel costs 20 %.
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK)
        // Disable proposals that our toolchains do not emit: that leaves less to validate and fewer faults. (Threads,
        // GC, exceptions and function references are not compiled in.)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_relaxed_simd(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        .wasm_stack_switching(false)
        // The same input gives the same bits on every worker, including NaNs.
        .cranelift_nan_canonicalization(true)
        .module_version(ModuleVersionStrategy::Custom(CODE_VERSION.to_owned()))?;
    if let Allocation::Pooled { attempts } = allocation {
        let mut pool = PoolingAllocationConfig::default();
        pool.total_component_instances(attempts)
            // Enough for a component of the largest size in every attempt, so that no attempt takes another attempt's
            // entries.
            .total_core_instances(attempts.saturating_mul(CORE_INSTANCES))
            // More slots than live components: a slot that its previous component reuses needs no new mapping (7 us
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
            // Reset by writing zeroes instead of by a system call. The size must cover a task's whole initial memory
            // (256 KiB of stack and its data); otherwise page faults cost more than the system call.
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
