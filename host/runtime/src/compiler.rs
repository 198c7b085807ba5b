//! Compiles and describes components, without running them: for registration and `task check`.

use std::path::PathBuf;
use std::time::Duration;

use dovetail_core::executor::HostError;
use dovetail_core::manifest::Grants;
use wasmtime::Engine;

use crate::cache::Cache;
use crate::compile::CompileLimits;
use crate::component::{Description, Task, opens, package_name, task};
use crate::engine::engine;
use crate::outcome::host_error;
use crate::package::Package;
use crate::refusal::{LoadError, Refusal};

/// wasmtime counts initial memory in these, in bytes.
const WASM_PAGE: u64 = 64 << 10;

/// Where compiled code is kept, and who compiles.
#[derive(Debug, Clone)]
pub struct CompilerOptions {
    /// Of the host alone; made if it is not there.
    pub cache_dir: PathBuf,
    /// The most that compiled code may take there, in bytes.
    pub cache_bytes: u64,
    /// The program whose hidden subcommand [`crate::SUBCOMMAND`] calls [`crate::compile_child`]; none: compile in this
    /// process, without limits.
    pub program: Option<PathBuf>,
    /// Of the process that compiles.
    pub limits: CompileLimits,
}

/// Compiles components and says what they are.
#[derive(Debug)]
pub struct Compiler {
    pub(crate) engine: Engine,
    cache: Cache,
}

impl Compiler {
    /// A compiler that runs nothing.
    ///
    /// # Errors
    /// If the cache folder cannot be used.
    pub fn new(options: CompilerOptions) -> Result<Self, HostError> {
        // With the slots of one attempt: what they do not hold is refused here, and not when it is first run.
        Self::with_engine(engine(1)?, options)
    }

    pub(crate) fn with_engine(engine: Engine, options: CompilerOptions) -> Result<Self, HostError> {
        let CompilerOptions { cache_dir, cache_bytes, program, limits } = options;
        let what = format!("make the folder of compiled code `{}`", cache_dir.display());
        let cache = Cache::open(&engine, cache_dir, cache_bytes, program, limits)
            .map_err(|error| host_error(what, false, error))?;
        Ok(Self { engine, cache })
    }

    /// What the host sees in a component: its task, its imports and their grants, its sizes.
    ///
    /// # Errors
    /// A refusal that names the import or field, or a failure of the host.
    pub fn describe(&self, component: &[u8], grants: &Grants) -> Result<Description, LoadError> {
        if let Some(origin) = grants.http.first() {
            // The manifest's grammar has it already; granting what nothing honours would be a promise.
            return Err(Refusal::new(
                "unsupported_grant",
                format!("plugin.toml asks to reach `{origin}`, and this dovetail lets no task use the network"),
                "remove `http` from [grants]; fetch the data before the pipeline and give it to the task as an artifact",
            )
            .into());
        }
        let compiled = self.cache.load(&self.engine, component)?;
        let Task { signature, imports, .. } = task(&self.engine, &compiled, grants)?;
        let image = compiled.image_range();
        Ok(Description {
            signature,
            pure: imports
                .iter()
                .all(|import| matches!(import.class, crate::GrantClass::Host | crate::GrantClass::Inert)),
            imports,
            opens: opens(&self.engine, &compiled),
            component_bytes: component.len() as u64,
            code_bytes: (image.end as usize - image.start as usize) as u64,
            initial_memory: compiled
                .resources_required()
                .map(|needs| needs.max_initial_memory_size.unwrap_or(0).saturating_mul(WASM_PAGE)),
        })
    }

    /// The same for a package; its component must be the task that the manifest names.
    ///
    /// # Errors
    /// As [`Compiler::describe`], and if the names differ.
    pub fn describe_package(&self, package: &Package) -> Result<Description, LoadError> {
        let description = self.describe(&package.component, &package.manifest.grants)?;
        check_name(&description.signature.interface, &package.manifest.name)?;
        Ok(description)
    }

    /// Removes compiled code that was not used for so long; with `look_only` it stays. How many components, and how
    /// many bytes.
    ///
    /// # Errors
    /// If the cache folder cannot be read, or written.
    pub fn remove_unused(&self, unused_for: Duration, look_only: bool) -> Result<(u64, u64), HostError> {
        self.cache
            .remove_unused(unused_for, look_only)
            .map_err(|error| host_error("remove compiled code that nobody uses", true, error))
    }

    pub(crate) fn task(&self, package: &Package) -> Result<Task, LoadError> {
        let compiled = self.cache.load(&self.engine, &package.component)?;
        let task = task(&self.engine, &compiled, &package.manifest.grants)?;
        check_name(&task.signature.interface, &package.manifest.name)?;
        Ok(task)
    }
}

fn check_name(interface: &str, name: &str) -> Result<(), Refusal> {
    match package_name(interface) {
        Some(package) if package == name => Ok(()),
        package => Err(Refusal::new(
            "wrong_component",
            format!("plugin.toml says `{name}`, but the component exports `{interface}`"),
            format!("set `name = \"{}\"` in plugin.toml, or pack the component of `{name}`", package.unwrap_or(name)),
        )),
    }
}
