//! Inspects a component: its imports, the task that it exports, the resources that it needs. A refusal names the
//! offending part.

use std::panic::catch_unwind;

use dovetail_core::executor::HostError;
use dovetail_core::manifest::Grants;
use dovetail_core::vision::ModelKind;
use dovetail_core::wit::Signature;
use serde::Serialize;
use wasmtime::Engine;
use wasmtime::component::types::{ComponentFunc, ComponentItem, Type as Native};
use wasmtime::component::{Component, ComponentExportIndex, InstancePre};
use wit_component::DecodedWasm;
use wit_parser::{Resolve, Type as WitType, TypeDefKind, WorldId, WorldItem};

use crate::engine::{MEMORIES, TABLES};
use crate::linker::{GrantClass, check_import, linker};
use crate::outcome::{host_error, scarce, scarce_error};
use crate::refusal::{LoadError, Refusal};
use crate::state::State;
use crate::text::truncate;
use crate::types::{MAX_TYPE_DEPTH, MAX_TYPE_NAME, MAX_TYPE_NODES, Reader, foreign, too_deep, too_large};

/// One import of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Import {
    /// The name with its version, such as `wasi:clocks/wall-clock@0.2.6`.
    pub name: String,
    /// What the import needs.
    pub class: GrantClass,
}

/// The description of a component.
#[derive(Debug, Clone)]
pub struct Description {
    /// The interface of its task.
    pub signature: Signature,
    /// In the component's order.
    pub imports: Vec<Import>,
    /// The kinds of models that the component can open.
    pub opens: Vec<ModelKind>,
    /// No import reaches a clock, randomness or a network, so the same input gives the same output.
    pub pure: bool,
    /// The size of the component, in bytes.
    pub component_bytes: u64,
    /// The size of its machine code and data, in bytes.
    pub code_bytes: u64,
    /// Linear memory before its first instruction, in bytes. `None` if that is unknown.
    pub initial_memory: Option<u64>,
}

/// A component that is linked and can be run.
pub(crate) struct Task {
    pub(crate) pre: InstancePre<State>,
    pub(crate) run: ComponentExportIndex,
    pub(crate) signature: Signature,
    pub(crate) imports: Vec<Import>,
}

/// Refuses files that are not components, before anything is compiled.
pub(crate) fn check_kind(bytes: &[u8]) -> Result<(), Refusal> {
    let refuse = |code, what: &str, help: &str| {
        Err(Refusal::new(code, format!("it is {what}, not a WebAssembly component"), help))
    };
    match bytes {
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => refuse(
            "core_module",
            "a core module",
            "build for wasm32-wasip2, or let `dovetail task pack` make a component of a module built for \
             wasm32-unknown-unknown",
        ),
        [0x7f, b'E', b'L', b'F', ..] => {
            refuse("native_code", "native code", "upload the .wasm file: code is compiled by the host itself")
        }
        _ if bytes.trim_ascii_start().starts_with(b"(") || bytes.starts_with(b";;") => {
            refuse("text_format", "WebAssembly text", "translate it first, with `wasm-tools parse`")
        }
        _ => refuse("not_wasm", "something else", "give the .wasm file that cargo wrote under target/wasm32-wasip2"),
    }
}

/// The refusal for a component that the compiler did not accept. It names the field if a type of the task's interface
/// is the cause.
pub(crate) fn explain(bytes: &[u8], compiler: &str) -> Refusal {
    // The texts of the pinned wasmtime version, which has no types for these errors. This crate's tests check the
    // texts.
    if compiler.contains("effective type size exceeds the limit") {
        return too_large(format!("its types have too many parts, each counted as often as it occurs: {compiler}"));
    }
    if compiler.contains("type nesting is too deep") {
        return too_deep(format!("its types are nested too deep: {compiler}"));
    }
    // The decoder may panic on malformed input. Then the compiler's own message is used.
    let found = catch_unwind(|| match wit_component::decode(bytes) {
        Ok(DecodedWasm::Component(resolve, world)) => unsupported(&resolve, world),
        _ => None,
    });
    match found {
        Ok(Some(refusal)) => refusal,
        _ => Refusal::new(
            "invalid_component",
            format!("the component is not valid: {compiler}"),
            "build it for wasm32-wasip2 (WASI 0.2); asynchronous components are not supported",
        ),
    }
}

/// The first exported function that is asynchronous, or that has a type that cannot be recorded.
fn unsupported(resolve: &Resolve, world: WorldId) -> Option<Refusal> {
    let mut search = Search { resolve, nodes: 0 };
    for (key, item) in &resolve.worlds[world].exports {
        let WorldItem::Interface { id, .. } = item else {
            continue;
        };
        let interface = resolve.name_world_key(key);
        for (name, function) in &resolve.interfaces[*id].functions {
            if function.kind.is_async() {
                return Some(Refusal::new(
                    "async_run",
                    format!("`{interface}` exports the asynchronous function `{name}`"),
                    "declare it without `async`",
                ));
            }
            for parameter in &function.params {
                if let Some(refusal) = search.walk(&parameter.ty, &parameter.name, 0) {
                    return Some(refusal);
                }
            }
            if let Some(refusal) = function.result.as_ref().and_then(|ty| search.walk(ty, "result", 0)) {
                return Some(refusal);
            }
        }
    }
    None
}

/// Searches types for parts that cannot be recorded, within the limits for a task's types: a few records can denote a
/// type of any size.
struct Search<'r> {
    resolve: &'r Resolve,
    nodes: usize,
}

impl Search<'_> {
    fn walk(&mut self, ty: &WitType, path: &str, depth: usize) -> Option<Refusal> {
        let WitType::Id(id) = ty else {
            return matches!(ty, WitType::ErrorContext).then(|| foreign(path, "an error-context"));
        };
        self.nodes += 1;
        if depth > MAX_TYPE_DEPTH || self.nodes > MAX_TYPE_NODES {
            return None;
        }
        let resolve = self.resolve;
        let mut next =
            |ty: &WitType, name: &str| self.walk(ty, &format!("{path}{}", truncate(name, MAX_TYPE_NAME)), depth + 1);
        match &resolve.types[*id].kind {
            TypeDefKind::Future(_) => Some(foreign(path, "a future")),
            TypeDefKind::Stream(_) => Some(foreign(path, "a stream")),
            TypeDefKind::Map(..) => Some(foreign(path, "a map")),
            TypeDefKind::FixedLengthList(..) => Some(foreign(path, "a list of fixed length")),
            TypeDefKind::Record(record) => {
                record.fields.iter().find_map(|field| next(&field.ty, &format!(".{}", field.name)))
            }
            TypeDefKind::Tuple(tuple) => tuple.types.iter().enumerate().find_map(|(n, ty)| next(ty, &format!(".{n}"))),
            TypeDefKind::Variant(variant) => {
                variant.cases.iter().find_map(|case| next(case.ty.as_ref()?, &format!(".{}", case.name)))
            }
            TypeDefKind::Option(ty) | TypeDefKind::Type(ty) => next(ty, ""),
            TypeDefKind::List(ty) => next(ty, "[]"),
            TypeDefKind::Result(result) => [&result.ok, &result.err].into_iter().flatten().find_map(|ty| next(ty, "")),
            _ => None,
        }
    }
}

/// Checks the imports, finds `run` and links the component.
///
/// # Errors
/// A refusal that names the import or the field, or a failure of the host.
pub(crate) fn task(engine: &Engine, component: &Component, grants: &Grants) -> Result<Task, LoadError> {
    let imports = imports(engine, component, grants)?;
    let operation = "link the host's interfaces";
    // A process with little memory or few descriptors fails here, too: the component is not at fault for that.
    let no_resources = |error: &wasmtime::Error| {
        scarce(error).map(|scarce| scarce_error(operation, scarce, &error.root_cause().to_string()))
    };
    let linker = linker(engine, grants)
        .map_err(|error| no_resources(&error).unwrap_or_else(|| host_error(operation, false, error)))?;
    // The imports passed the check above, so a component that does not link was made for another version of an
    // interface.
    let mismatch = |error: wasmtime::Error| match no_resources(&error) {
        Some(error) => LoadError::Host(error),
        None => LoadError::Refused(Refusal::new(
            "incompatible_import",
            crate::text::message(&format!("it does not fit this host: {error:#}")),
            "rebuild it with the SDK of this dovetail, or update dovetail",
        )),
    };
    let ty = linker.substituted_component_type(component).map_err(mismatch)?;
    let mut found = Vec::new();
    for (name, item) in ty.exports(engine) {
        if let ComponentItem::ComponentInstance(interface) = item.ty
            && let Some(ComponentItem::ComponentFunc(run)) = interface.get_export(engine, "run").map(|export| export.ty)
        {
            found.push((name.to_owned(), run));
        }
    }
    let (interface, run) = match found.len() {
        1 => found.remove(0),
        0 => {
            return Err(Refusal::new(
                "no_run",
                "it exports no interface with a function `run`",
                "export one: `interface task { run: func(input: input) -> result<output, task-error>; }`, \
                 with `export task;` in its world",
            )
            .into());
        }
        _ => {
            let names: Vec<_> = found.iter().map(|(name, _)| format!("`{name}`")).collect();
            return Err(Refusal::new(
                "two_runs",
                format!("several exported interfaces have a function `run`: {}", names.join(", ")),
                "export exactly one task",
            )
            .into());
        }
    };
    let signature = signature(interface, &run)?;
    let index = component
        .get_export_index(None, &signature.interface)
        .and_then(|interface| component.get_export_index(Some(&interface), "run"))
        .ok_or_else(|| HostError {
            operation: format!("find `run` of `{}`", signature.interface),
            transient: false,
            missing: None,
            source: None,
        })?;
    let pre = linker.instantiate_pre(component).map_err(mismatch)?;
    if let Some(needs) = component.resources_required()
        && (needs.num_memories > MEMORIES || needs.num_tables > TABLES)
    {
        let message = format!(
            "it has {} memories and {} tables; at most {MEMORIES} and {TABLES} are allowed",
            needs.num_memories, needs.num_tables
        );
        return Err(Refusal::new("too_many_memories", message, "link its modules into one").into());
    }
    Ok(Task { pre, run: index, signature, imports })
}

fn imports(engine: &Engine, component: &Component, grants: &Grants) -> Result<Vec<Import>, Refusal> {
    let mut imports = Vec::new();
    for (name, item) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(instance) = item.ty else {
            if matches!(item.ty, ComponentItem::Type(_)) {
                continue;
            }
            return Err(Refusal::new(
                "unknown_import",
                format!("it imports `{name}`, which is not an interface"),
                "import dovetail:task, dovetail:vision and WASI 0.2 only",
            ));
        };
        // `wasi:filesystem/types` uses the date type of a clock's interface. An import of which the component uses only
        // types reaches nothing.
        let types_only = instance.exports(engine).all(|(_, item)| matches!(item.ty, ComponentItem::Type(_)));
        let class = match check_import(name, grants) {
            Err(_) if types_only && crate::linker::grant_class(name) != GrantClass::Unknown => GrantClass::Inert,
            other => other?,
        };
        imports.push(Import { name: name.to_owned(), class });
    }
    Ok(imports)
}

/// The kinds of models whose `open` the component imports. A component imports only those functions of an interface
/// that it calls.
pub(crate) fn opens(engine: &Engine, component: &Component) -> Vec<ModelKind> {
    let ty = component.component_type();
    let faces = ty.imports(engine).find_map(|(name, item)| match item.ty {
        ComponentItem::ComponentInstance(instance) if name.starts_with("dovetail:vision/faces@") => Some(instance),
        _ => None,
    });
    let opens = |kind: &ModelKind| {
        let open = format!("[static]{}.open", kind.name().replace('_', "-"));
        faces.as_ref().is_some_and(|faces| faces.exports(engine).any(|(name, _)| name == open))
    };
    ModelKind::ALL.into_iter().filter(opens).collect()
}

/// Reads `run: func(input: record) -> result<record?, task-error>` as data.
fn signature(interface: String, run: &ComponentFunc) -> Result<Signature, Refusal> {
    let wrong = |what: String| {
        Refusal::new(
            "wrong_run",
            format!("`run` of `{interface}` {what}"),
            "declare `run: func(input: input) -> result<output, task-error>`",
        )
    };
    if run.async_() {
        return Err(Refusal::new(
            "async_run",
            format!("`run` of `{interface}` is asynchronous"),
            "declare it without `async`",
        ));
    }
    let mut reader = Reader::default();
    let parameters: Vec<_> = run.params().collect();
    let [(name, Native::Record(input))] = parameters.as_slice() else {
        return Err(wrong(format!("takes {} parameters; it must take one, a record", parameters.len())));
    };
    let input = reader.fields(input, name, 0)?;
    let results: Vec<_> = run.results().collect();
    let [Native::Result(result)] = results.as_slice() else {
        return Err(wrong("returns no `result`".to_owned()));
    };
    let output = match result.ok() {
        None => Vec::new(),
        Some(Native::Record(output)) => reader.fields(&output, "output", 0)?,
        Some(_) => {
            return Err(wrong("returns something other than a record in its `result`".to_owned()));
        }
    };
    if !result.err().is_some_and(|ty| is_task_error(&ty)) {
        return Err(Refusal::new(
            "wrong_error_type",
            format!("the error type of `run` of `{interface}` is not `task-error` of dovetail:task/types"),
            "write `use dovetail:task/types@0.1.0.{task-error};` in the interface and return \
             `result<output, task-error>`",
        ));
    }
    Ok(Signature { interface, input, output })
}

/// Whether the type has the structure of `dovetail:task/types.task-error`. Names of types do not survive in a
/// component.
fn is_task_error(ty: &Native) -> bool {
    let Native::Variant(variant) = ty else {
        return false;
    };
    let cases: Vec<_> = variant.cases().collect();
    let [invalid, cancelled, unavailable, failed] = cases.as_slice() else {
        return false;
    };
    let named = (invalid.name, cancelled.name, unavailable.name, failed.name)
        == ("invalid-input", "cancelled", "unavailable", "failed");
    named
        && cancelled.ty.is_none()
        && [invalid, unavailable, failed].iter().all(|case| case.ty.as_ref().is_some_and(is_failure))
}

fn is_failure(ty: &Native) -> bool {
    let Native::Record(record) = ty else {
        return false;
    };
    let fields: Vec<_> = record.fields().collect();
    let names: Vec<_> = fields.iter().map(|field| field.name).collect();
    if names != ["code", "message", "retryable", "retry-after-ms", "details"] {
        return false;
    }
    let option = matches!(&fields[3].ty, Native::Option(option) if matches!(option.ty(), Native::U64));
    let details = match &fields[4].ty {
        Native::List(list) => match list.ty() {
            Native::Tuple(pair) => pair.types().len() == 2 && pair.types().all(|ty| matches!(ty, Native::String)),
            _ => false,
        },
        _ => false,
    };
    matches!(fields[0].ty, Native::String)
        && matches!(fields[1].ty, Native::String)
        && matches!(fields[2].ty, Native::Bool)
        && option
        && details
}

/// The name of the package: `face-count` for `acme:face-count/task@1.2.0`.
pub(crate) fn package_name(interface: &str) -> Option<&str> {
    interface.split_once(':')?.1.split_once('/').map(|(package, _)| package)
}

/// Makes a component of a core module that was built for `wasm32-unknown-unknown` and contains its WIT.
///
/// # Errors
/// `not_wasm` if it is not a core module; `invalid_component` if it contains no valid WIT.
pub fn componentize(module: &[u8]) -> Result<Vec<u8>, Refusal> {
    if !matches!(module, [0, b'a', b's', b'm', 1, 0, 0, 0, ..]) {
        return Err(Refusal::new(
            "not_wasm",
            "it is not a core WebAssembly module",
            "give the .wasm file that cargo wrote under target/wasm32-unknown-unknown",
        ));
    }
    let encode = || {
        wit_component::ComponentEncoder::default()
            .validate(true)
            .module(module)
            .and_then(|mut encoder| encoder.encode())
    };
    let refuse = |why: String| {
        Refusal::new(
            "invalid_component",
            crate::text::message(&format!("the module cannot be made into a component: {why}")),
            "build the task with the SDK",
        )
    };
    match catch_unwind(std::panic::AssertUnwindSafe(encode)) {
        Ok(component) => component.map_err(|error| refuse(format!("{error:#}"))),
        Err(_) => Err(refuse("its WIT section is damaged".to_owned())),
    }
}
