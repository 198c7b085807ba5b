//! Compiles and describes components without running them, for registration and `task check`.

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

/// The size of a page of initial memory as wasmtime counts it, in bytes.
const WASM_PAGE: u64 = 64 << 10;

/// Where compiled code is kept, and how components are compiled.
#[derive(Debug, Clone)]
pub struct CompilerOptions {
    /// The folder of compiled code. Only the host may write to it. It is created if it does not exist.
    pub cache_dir: PathBuf,
    /// The most bytes of compiled code in that folder.
    pub cache_bytes: u64,
    /// The program whose hidden subcommand [`crate::SUBCOMMAND`] calls [`crate::compile_child`]. `None`: compile in
    /// this process, where only the size of the code is limited.
    pub program: Option<PathBuf>,
    /// The limits of the child process that compiles.
    pub limits: CompileLimits,
}

/// Compiles and describes components.
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
        // The engine has the slots of one attempt, so a component that does not fit into them is refused here, not at
        // its first run.
        Self::with_engine(engine(1)?, options)
    }

    pub(crate) fn with_engine(engine: Engine, options: CompilerOptions) -> Result<Self, HostError> {
        let CompilerOptions { cache_dir, cache_bytes, program, limits } = options;
        let what = format!("make the folder of compiled code `{}`", cache_dir.display());
        let cache = Cache::open(&engine, cache_dir, cache_bytes, program, limits)
            .map_err(|error| host_error(what, false, error))?;
        Ok(Self { engine, cache })
    }

    /// Describes a component: its task, its imports with their grants, and its sizes.
    ///
    /// # Errors
    /// A refusal that names the import or field, or a failure of the host.
    pub fn describe(&self, component: &[u8], grants: &Grants) -> Result<Description, LoadError> {
        if let Some(origin) = grants.http.first() {
            // The manifest's grammar already has this grant. Accepting a grant that has no effect would be a false
            // promise.
            return Err(Refusal::new(
                "unsupported_grant",
                format!(
                    "plugin.toml asks for access to `{origin}`, but this version of dovetail gives no task access \
                    to the network"
                ),
                "remove `http` from [grants]; fetch the data before the pipeline and give it to the task as an \
                 artifact",
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

    /// Describes a package. Its component must export the task that the manifest names. Public only for tests; the
    /// service reads a package and calls [`Compiler::describe`].
    ///
    /// # Errors
    /// The errors of [`Compiler::describe`], and a refusal if the names differ.
    #[doc(hidden)]
    pub fn describe_package(&self, package: &Package) -> Result<Description, LoadError> {
        let description = self.describe(&package.component, &package.manifest.grants)?;
        check_name(&description.signature.interface, &package.manifest.name)?;
        Ok(description)
    }

    /// Removes compiled code that was not used for `unused_for`; with `look_only` it removes nothing. Returns the
    /// number of components and their bytes.
    ///
    /// # Errors
    /// If the cache folder cannot be read or written.
    pub fn remove_unused(&self, unused_for: Duration, look_only: bool) -> Result<(u64, u64), HostError> {
        self.cache
            .remove_unused(unused_for, look_only)
            .map_err(|error| host_error("remove unused compiled code", true, error))
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
