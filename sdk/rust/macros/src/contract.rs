//! Reads the parts of a task's WIT that the generated code depends on: the exported interface, the types that it
//! declares, and the host's interfaces that it uses.

use std::path::Path;

use heck::{ToSnakeCase as _, ToUpperCamelCase as _};
use wit_parser::{
    Function, Handle, InterfaceId, PackageId, Resolve, Type, TypeDefKind, TypeId, TypeOwner, WorldId, WorldItem,
    WorldKey,
};

/// The folders of the host's packages in this crate.
const HOST: [&str; 2] =
    [concat!(env!("CARGO_MANIFEST_DIR"), "/wit/task"), concat!(env!("CARGO_MANIFEST_DIR"), "/wit/vision")];
const SHOULD_BE: &str =
    "`run: func(input: input) -> result<output, task-error>`, with `task-error` from `dovetail:task/types@0.1.0`";

/// The facts from which the code is generated.
#[derive(Debug, PartialEq)]
pub(crate) struct Contract {
    /// Absolute paths of the folders with WIT, in the order in which they are read.
    pub(crate) folders: Vec<String>,
    /// The full name of the world: `acme:task/component@1.0.0`.
    pub(crate) world: String,
    /// The Rust path of the exported interface below `exports`: `acme`, `task_name`, `task`.
    pub(crate) interface: Vec<String>,
    /// The Rust names of the types that this interface declares, without the host's types.
    pub(crate) types: Vec<String>,
    /// The host's interfaces that are used, each with its Rust path in the SDK.
    pub(crate) host: Vec<(String, Vec<String>)>,
    /// The names (kebab-case) of types that contain handles, and therefore cannot derive `PartialEq`.
    pub(crate) incomparable: Vec<String>,
    /// The Rust name of the input type.
    pub(crate) input: String,
    /// The Rust name of the output type; `None` for `result<_, task-error>`.
    pub(crate) output: Option<String>,
}

/// Reads the `wit` folder of the crate in the folder `krate`.
///
/// # Errors
/// What is wrong, as a sentence for the author.
pub(crate) fn read(krate: &Path, world: Option<&str>) -> Result<Contract, String> {
    let own = krate.join("wit");
    if !own.is_dir() {
        return Err(format!(
            "there is no folder {}: a task's WIT package is in `wit/` beside its Cargo.toml",
            own.display()
        ));
    }
    let folder = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| format!("the path {} is not UTF-8", path.display()))
    };
    let own = folder(&own)?;
    // An author may keep the host's packages in `wit/deps`, because other tools need them there. Then they are read
    // from there.
    let carried = has_host_packages(&krate.join("wit/deps"));
    let folders: Vec<String> =
        if carried { vec![own] } else { HOST.iter().map(|f| (*f).to_owned()).chain([own]).collect() };

    let mut resolve = Resolve::default();
    let mut package = None;
    for folder in &folders {
        let (id, _) = resolve.push_path(folder).map_err(|e| format!("{e:#}"))?;
        package = Some(id);
    }
    let package = package.ok_or("no folder was read")?;
    let world = choose_world(&resolve, package, world)?;
    let (interface, run) = exported_run(&resolve, world)?;
    let (input, output) = signature(&resolve, run)?;

    let host = resolve.worlds[world].imports.keys().filter_map(|key| host_interface(&resolve, key)).collect();
    let declared = resolve.interfaces[interface].types.iter();
    let types =
        declared.filter(|(_, id)| !is_hosts(&resolve, **id)).map(|(name, _)| name.to_upper_camel_case()).collect();
    let incomparable = resolve
        .types
        .iter()
        .filter(|(id, _)| holds_handle(&resolve, *id))
        .filter_map(|(_, t)| t.name.clone())
        .collect();
    Ok(Contract {
        world: resolve.packages[package].name.interface_id(&resolve.worlds[world].name),
        interface: rust_path(&resolve, interface).ok_or("the exported interface has no name")?,
        folders,
        types,
        host,
        incomparable,
        input,
        output,
    })
}

/// Whether a file in `deps` or in one of its folders declares the package `dovetail:task`.
fn has_host_packages(deps: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(deps) else { return false };
    let declares = |text: String| text.lines().any(|line| line.trim_start().starts_with("package dovetail:task"));
    entries.flatten().map(|e| e.path()).any(|path| {
        if path.is_dir() { has_host_packages(&path) } else { std::fs::read_to_string(path).is_ok_and(declares) }
    })
}

fn choose_world(resolve: &Resolve, package: PackageId, wanted: Option<&str>) -> Result<WorldId, String> {
    let package = &resolve.packages[package];
    let names = || package.worlds.keys().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    match (wanted, package.worlds.len()) {
        (Some(name), _) => package
            .worlds
            .get(name)
            .copied()
            .ok_or_else(|| format!("{} has no world `{name}`: it has {}", package.name, names())),
        (None, 1) => Ok(package.worlds[0]),
        (None, 0) => {
            Err(format!("{} has no world: it should have one that exports the task's interface", package.name))
        }
        (None, _) => Err(format!(
            "{} has several worlds ({}): choose one with `#[dovetail_sdk::task(world = \"name\")]`",
            package.name,
            names()
        )),
    }
}

fn exported_run(resolve: &Resolve, world: WorldId) -> Result<(InterfaceId, &Function), String> {
    let world = &resolve.worlds[world];
    let mut found = Vec::new();
    for (key, item) in &world.exports {
        let name = resolve.name_world_key(key);
        let WorldItem::Interface { id, .. } = item else {
            return Err(format!("the world `{}` exports `{name}` by itself: a task exports one interface", world.name));
        };
        let functions = &resolve.interfaces[*id].functions;
        if let Some(other) = functions.keys().find(|f| *f != "run") {
            return Err(format!("the exported interface {name} has a function `{other}`: a task has `run` only"));
        }
        found.extend(functions.get("run").map(|run| (*id, run)));
    }
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(format!("the world `{}` exports no interface with {SHOULD_BE}", world.name)),
        _ => Err(format!("the world `{}` exports {} interfaces with a `run`: a task has one", world.name, found.len())),
    }
}

/// The names of the input type and the output type.
fn signature(resolve: &Resolve, run: &Function) -> Result<(String, Option<String>), String> {
    let wrong = |what: &str| format!("`run` {what}: it should be {SHOULD_BE}");
    let [input] = run.params.as_slice() else { return Err(wrong(&format!("takes {} arguments", run.params.len()))) };
    let input = record(resolve, input.ty).ok_or_else(|| wrong("takes an input that is not a record"))?;
    let Some(TypeDefKind::Result(result)) = run.result.and_then(|t| kind(resolve, t)) else {
        return Err(wrong("returns no result"));
    };
    let output = match result.ok {
        None => None,
        Some(ok) => Some(record(resolve, ok).ok_or_else(|| wrong("returns an output that is not a record"))?),
    };
    let Some(Type::Id(error)) = result.err else { return Err(wrong("has another error type")) };
    let error = origin(resolve, error);
    let is_ours = resolve.types[error].name.as_deref() == Some("task-error") && is_hosts(resolve, error);
    if is_ours { Ok((input, output)) } else { Err(wrong("has another error type")) }
}

fn kind(resolve: &Resolve, ty: Type) -> Option<&TypeDefKind> {
    match ty {
        Type::Id(id) => Some(&resolve.types[origin(resolve, id)].kind),
        _ => None,
    }
}

fn record(resolve: &Resolve, ty: Type) -> Option<String> {
    let Type::Id(id) = ty else { return None };
    matches!(kind(resolve, ty), Some(TypeDefKind::Record(_)))
        .then(|| resolve.types[id].name.as_deref().map(str::to_upper_camel_case))?
}

/// The type to which a `use` or a chain of aliases refers.
fn origin(resolve: &Resolve, id: TypeId) -> TypeId {
    match resolve.types[id].kind {
        TypeDefKind::Type(Type::Id(next)) => origin(resolve, next),
        _ => id,
    }
}

fn is_hosts(resolve: &Resolve, id: TypeId) -> bool {
    match resolve.types[origin(resolve, id)].owner {
        TypeOwner::Interface(interface) => is_host_interface(resolve, interface),
        _ => false,
    }
}

/// Whether the SDK has bindings of this interface.
fn is_host_interface(resolve: &Resolve, interface: InterfaceId) -> bool {
    let package = resolve.interfaces[interface].package.map(|p| &resolve.packages[p].name);
    package.is_some_and(|name| {
        name.namespace == "dovetail"
            && matches!(name.name.as_str(), "task" | "vision")
            && name.version.as_ref().is_some_and(|v| v.to_string() == "0.1.0")
    })
}

fn host_interface(resolve: &Resolve, key: &WorldKey) -> Option<(String, Vec<String>)> {
    let WorldKey::Interface(id) = key else { return None };
    is_host_interface(resolve, *id).then(|| rust_path(resolve, *id).map(|path| (resolve.name_world_key(key), path)))?
}

fn rust_path(resolve: &Resolve, interface: InterfaceId) -> Option<Vec<String>> {
    let interface = &resolve.interfaces[interface];
    let package = &resolve.packages[interface.package?].name;
    Some([&package.namespace, &package.name, interface.name.as_ref()?].map(|part| part.to_snake_case()).to_vec())
}

fn holds_handle(resolve: &Resolve, id: TypeId) -> bool {
    let inside = |ty: &Type| matches!(ty, Type::Id(id) if holds_handle(resolve, *id));
    match &resolve.types[id].kind {
        TypeDefKind::Resource | TypeDefKind::Handle(Handle::Own(_) | Handle::Borrow(_)) => true,
        TypeDefKind::Type(ty)
        | TypeDefKind::List(ty)
        | TypeDefKind::Option(ty)
        | TypeDefKind::FixedLengthList(ty, _) => inside(ty),
        TypeDefKind::Record(record) => record.fields.iter().any(|f| inside(&f.ty)),
        TypeDefKind::Tuple(tuple) => tuple.types.iter().any(inside),
        TypeDefKind::Variant(variant) => variant.cases.iter().any(|c| c.ty.as_ref().is_some_and(inside)),
        TypeDefKind::Result(result) => [result.ok, result.err].iter().flatten().any(inside),
        TypeDefKind::Map(key, value) => inside(key) || inside(value),
        // The host refuses futures and streams; the other types contain no handles.
        TypeDefKind::Flags(_)
        | TypeDefKind::Enum(_)
        | TypeDefKind::Future(_)
        | TypeDefKind::Stream(_)
        | TypeDefKind::Unknown => false,
    }
}

#[cfg(test)]
mod tests;
