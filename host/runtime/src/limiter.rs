//! Limits for all instances of an attempt together: linear memory, tables, instances. wasmtime's own limiter would
//! count each memory separately.

use wasmtime::ResourceLimiter;

use crate::engine::{CORE_INSTANCES, MEMORIES, TABLE_ELEMENTS, TABLES};
use crate::outcome::{AttemptEnd, scarce, scarce_error};

/// wasmtime's text for a growth that it refuses without asking the limiter. A test checks the text.
const BEYOND_TYPE: &str = "exceeds memory type's limits";

/// Counts the linear memory and records what was refused.
#[derive(Debug)]
pub(crate) struct Memory {
    limit: usize,
    held: usize,
    /// Bytes of the last growth that was allowed, taken back if wasmtime fails to carry it out.
    granted_last: usize,
    /// The most memory held at once, in bytes.
    pub(crate) peak: usize,
    /// The bytes of the last growth that was refused. If the guest aborts next, this is the reason.
    pub(crate) denied: Option<usize>,
}

impl Memory {
    /// A limit of `limit` bytes over all memories.
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit: usize::try_from(limit).unwrap_or(usize::MAX), held: 0, granted_last: 0, peak: 0, denied: None }
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        self.granted_last = 0;
        if maximum.is_some_and(|maximum| desired > maximum) {
            // The module's own maximum is its author's decision. (wasmtime's slots are never smaller than the limit.)
            return Ok(false);
        }
        let wanted = self.held.saturating_add(more);
        if wanted > self.limit {
            self.denied = Some(more);
            return Ok(false);
        }
        (self.held, self.granted_last) = (wanted, more);
        self.peak = self.peak.max(wanted);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        // The growth was within the task's limit, and the system refused it; another machine would have allowed it. The
        // guest must not see the refusal, or its result would depend on the machine.
        if let Some(scarce) = scarce(&error) {
            let why = error.root_cause().to_string();
            return Err(wasmtime::Error::new(AttemptEnd::Host(scarce_error("grow the task's memory", scarce, &why))));
        }
        // wasmtime does not ask the limiter for a growth beyond the memory's type, so there is nothing to take back.
        if error.root_cause().to_string().contains(BEYOND_TYPE) {
            return Ok(());
        }
        self.held -= std::mem::take(&mut self.granted_last);
        Ok(())
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES as usize
    }

    fn tables(&self) -> usize {
        TABLES as usize
    }

    fn memories(&self) -> usize {
        MEMORIES as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_are_counted_together() {
        let mut memory = Memory::new(100);
        assert!(memory.memory_growing(0, 60, None).unwrap());
        assert!(memory.memory_growing(0, 40, None).unwrap());
        assert_eq!((memory.peak, memory.denied), (100, None));
        assert!(!memory.memory_growing(40, 50, None).unwrap());
        assert_eq!((memory.peak, memory.denied), (100, Some(10)));
    }

    #[test]
    fn what_failed_to_grow_is_not_held() {
        let mut memory = Memory::new(100);
        assert!(memory.memory_growing(0, 90, None).unwrap());
        memory.memory_grow_failed(wasmtime::format_err!("no pages")).unwrap();
        assert!(memory.memory_growing(0, 90, None).unwrap());
    }

    #[test]
    fn what_was_never_granted_is_not_given_back() {
        let mut memory = Memory::new(100);
        assert!(memory.memory_growing(0, 90, None).unwrap());
        memory.memory_grow_failed(wasmtime::format_err!("memory growth {BEYOND_TYPE}")).unwrap();
        assert!(!memory.memory_growing(90, 180, None).unwrap(), "the 90 are still held");
    }

    #[test]
    fn what_the_system_refuses_within_the_limit_ends_the_attempt_by_the_hosts_fault() {
        let mut memory = Memory::new(100);
        assert!(memory.memory_growing(0, 90, None).unwrap());
        let refused = wasmtime::Error::new(std::io::Error::from_raw_os_error(12)).context("mprotect");
        let error = memory.memory_grow_failed(refused).unwrap_err();
        let Ok(AttemptEnd::Host(error)) = error.downcast::<AttemptEnd>() else { panic!("the guest would be told") };
        assert_eq!(error.scarce(), Some(dovetail_core::scarce::Scarce::Memory));
    }

    #[test]
    fn tables_have_a_size() {
        let mut memory = Memory::new(0);
        assert!(memory.table_growing(0, TABLE_ELEMENTS, None).unwrap());
        assert!(!memory.table_growing(0, TABLE_ELEMENTS + 1, None).unwrap());
    }
}
