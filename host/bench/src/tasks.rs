//! The tasks and pipelines of the measurements. The tasks only return their input, so that the remaining time is ours.
//! A user needs no toolchain for them: they are assembled here from text, except for one in Rust, whose component is
//! part of this program.

use std::collections::BTreeMap;

use dovetail_core::Digest;
use dovetail_core::manifest::Manifest;
use dovetail_flow::{Ports, Published};
use dovetail_runtime::{PackageContent, componentize_world, pack};
use serde_json::{Map, Value, json};

use dovetail_service::Error;
use dovetail_service::Service;
use dovetail_service::plugins::plugin_record;

/// The number of independent steps in one run.
pub(crate) const STEPS: u32 = 10;
/// The number of steps in a run that forks and joins.
pub(crate) const FORK_JOIN_STEPS: u32 = 4;

/// The component of `plugins/noop`, built and written by `scripts/bench-noop`.
const NOOP: &[u8] = include_bytes!("noop.wasm");

/// A published pipeline, and the steps whose outputs are its result.
pub(crate) struct Graph {
    pub(crate) published: Published,
    pub(crate) results: Vec<String>,
}

/// The published tasks and pipelines.
pub(crate) struct Tasks {
    /// The package of the task that returns its number.
    pub(crate) number: Digest,
    pub(crate) independent: Graph,
    pub(crate) single: Graph,
    pub(crate) fork_join: Graph,
    /// A pipeline that returns its text.
    pub(crate) text: Graph,
}

impl Tasks {
    /// Publishes the tasks and pipelines.
    pub(crate) fn publish(service: &Service) -> Result<Self, Error> {
        let ports = service.ports()?;
        let number = push(service, "number", &numbers("number", &["n"])?)?;
        push(service, "join", &numbers("join", &["a", "b"])?)?;
        push(service, "text", &text("text")?)?;
        let text = vec![("only".to_owned(), "text", vec![("text", "input.text".to_owned())])];
        let single = vec![one("only", "input.n")];
        let join = ("join".to_owned(), "join", vec![("a", "left.n".to_owned()), ("b", "right.n".to_owned())]);
        let fork_join = vec![one("first", "input.n"), one("left", "first.n"), one("right", "first.n"), join];
        Ok(Self {
            number,
            independent: independent(ports, STEPS)?,
            single: graph(ports, "bench-single", "n", &single, vec!["only".to_owned()])?,
            fork_join: graph(ports, "bench-fork-join", "n", &fork_join, vec!["join".to_owned()])?,
            text: graph(ports, "bench-text", "text", &text, vec!["only".to_owned()])?,
        })
    }
}

fn one(name: &str, from: &str) -> Step<'static> {
    (name.to_owned(), "number", vec![("n", from.to_owned())])
}

/// A pipeline of `steps` independent steps that return the same number.
pub(crate) fn independent(ports: &Ports, steps: u32) -> Result<Graph, Error> {
    let names: Vec<String> = (1..=steps).map(|n| format!("s{n}")).collect();
    let steps: Vec<_> = names.iter().map(|name| one(name, "input.n")).collect();
    graph(ports, &format!("bench-independent-{}", names.len()), "n", &steps, names)
}

type Step<'a> = (String, &'a str, Vec<(&'a str, String)>);

/// Publishes a pipeline. `field` is the name of its input, and of the output of each step in `results`.
fn graph(ports: &Ports, name: &str, field: &str, steps: &[Step<'_>], results: Vec<String>) -> Result<Graph, Error> {
    let step = |(n, (name, task, inputs)): (usize, &Step<'_>)| {
        let inputs: Map<String, Value> =
            inputs.iter().map(|(field, from)| ((*field).to_owned(), json!(from))).collect();
        (name.clone(), json!({ "number": n + 1, "task": format!("{task}@1.0.0"), "inputs": inputs }))
    };
    let steps: Map<String, Value> = steps.iter().enumerate().map(step).collect();
    let output: Map<String, Value> =
        results.iter().map(|step| (step.clone(), json!(format!("{step}.{field}")))).collect();
    let file = json!({ "name": name, "version": "1.0.0", "inputs": { field: {} }, "steps": steps, "output": output });
    let checked = dovetail_flow::check(ports, &file.to_string())?;
    let pipeline = checked.pipeline.ok_or_else(|| {
        Error::host("bench_pipeline", format!("the pipeline of `{name}` is wrong: {:?}", checked.findings))
    })?;
    Ok(Graph { published: dovetail_flow::push_pipeline(ports, &pipeline)?.0, results })
}

/// Publishes the task in Rust, with std, that returns a number and a text. No pipeline uses it.
pub(crate) fn noop(service: &Service) -> Result<Digest, Error> {
    push(service, "noop", NOOP)
}

/// Publishes a task.
fn push(service: &Service, name: &str, component: &[u8]) -> Result<Digest, Error> {
    let manifest =
        format!("name = \"{name}\"\nversion = \"1.0.0\"\ndescription = \"does nothing, for measurements\"\n");
    let none = BTreeMap::new();
    let package = pack(PackageContent { manifest: &manifest, component, wit: &none, readme: None, examples: &none })?;
    let manifest = Manifest::parse(&manifest)
        .map_err(|errors| Error::host("bench_task", format!("the manifest of `{name}` is wrong: {errors:?}")))?;
    let description = service.compiler()?.describe(component, &manifest.grants)?;
    let ports = service.ports()?;
    let record = plugin_record(manifest, description, &package, ports.clock.wall_ms());
    dovetail_flow::push_plugin(ports, &record, &package)?;
    Ok(record.package)
}

/// A component that returns the sum of the numbers in these fields.
fn numbers(name: &str, fields: &[&str]) -> Result<Vec<u8>, Error> {
    let input = fields.iter().map(|field| format!("{field}: u32")).collect::<Vec<_>>().join(", ");
    let parameters = "i32 ".repeat(fields.len());
    let rest = (1..fields.len()).map(|n| format!("(local.get {n}) i32.add ")).collect::<String>();
    // From address 16 the memory holds the result: first the case of `result`, and at 24 the record. Numbers need no
    // memory as input.
    let core = format!(
        "(module
            (memory (export \"memory\") 1)
            (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export \"bench:{name}/task@1.0.0#run\") (param {parameters}) (result i32)
                i32.const 24 (local.get 0) {rest} i32.store
                i32.const 16))"
    );
    component(name, &input, "n: u32", &core)
}

/// A component that returns its text. The host writes the text to the address that `cabi_realloc` returns, and reads it
/// from there.
fn text(name: &str) -> Result<Vec<u8>, Error> {
    let core = format!(
        "(module
            (memory (export \"memory\") 1)
            (global $end (mut i32) (i32.const 1024))
            (func (export \"cabi_realloc\")
                (param $old i32) (param $size i32) (param $align i32) (param $new i32) (result i32)
                (local $at i32)
                (local.set $at (i32.and
                    (i32.add (global.get $end) (local.get $align))
                    (i32.sub (i32.const 0) (local.get $align))))
                (global.set $end (i32.add (local.get $at) (local.get $new)))
                (if (i32.gt_u (global.get $end) (i32.mul (memory.size) (i32.const 65536))) (then
                    (if (i32.eq
                            (memory.grow (i32.add (i32.div_u (local.get $new) (i32.const 65536)) (i32.const 1)))
                            (i32.const -1))
                        (then unreachable))))
                (local.get $at))
            (func (export \"bench:{name}/task@1.0.0#run\") (param i32 i32) (result i32)
                (i32.store (i32.const 24) (local.get 0))
                (i32.store (i32.const 28) (local.get 1))
                (i32.const 16)))"
    );
    component(name, "text: string", "text: string", &core)
}

fn component(name: &str, input: &str, output: &str, core: &str) -> Result<Vec<u8>, Error> {
    let wit = format!(
        "package bench:{name}@1.0.0;
        interface task {{
            use dovetail:task/types@0.1.0.{{task-error}};
            record input {{ {input} }}
            record output {{ {output} }}
            run: func(input: input) -> result<output, task-error>;
        }}
        world component {{ export task; }}"
    );
    let module = wat::parse_str(core)
        .map_err(|e| Error::host("bench_task", format!("the text of `{name}` is wrong")).cause(e))?;
    Ok(componentize_world(&wit, "component", &module)?)
}
