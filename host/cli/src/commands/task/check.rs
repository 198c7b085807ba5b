//! `task check`: what the host sees in a plugin, or everything for which it would be refused.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use dovetail_core::limits::Limits;
use dovetail_core::manifest::{Grants, Manifest, show_duration_ms, show_size};
use dovetail_core::wit::{Signature, schema, show};
use dovetail_runtime::{Compiler, Description, GrantClass, LoadError, Package, Refusal};
use serde_json::{Value, json};

use super::{asked, grants_json};
use crate::error::{Error, Exit};
use crate::paths::Shown as _;
use crate::plugin::{self, Found, Stale};
use crate::table::{bytes, indented};
use crate::wire::App;

/// Why a plugin is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    code: &'static str,
    message: String,
    help: String,
    /// In `plugin.toml`, from 1.
    place: Option<(u32, u32)>,
}

impl Finding {
    fn new(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: help.into(), place: None }
    }

    fn to_json(&self) -> Value {
        let mut json = json!({ "code": self.code, "message": self.message, "help": self.help });
        if let Some((line, column)) = self.place {
            json["path"] = json!("plugin.toml");
            json["line"] = json!(line);
            json["column"] = json!(column);
        }
        json
    }

    fn to_text(&self) -> String {
        let place = self.place.map_or_else(String::new, |(line, column)| format!("plugin.toml:{line}:{column} "));
        let help = if self.help.is_empty() { String::new() } else { format!("\n    help   {}", self.help) };
        format!("{place}error[{}]: {}{help}\n", self.code, self.message)
    }
}

impl From<Refusal> for Finding {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code, refusal.message, refusal.help)
    }
}

/// A plugin that can be published.
pub(super) struct Good {
    pub(super) manifest: Manifest,
    pub(super) description: Description,
    pub(super) package: Vec<u8>,
}

/// Looks at a plugin; the findings if it is refused. An error is only what keeps us from looking.
pub(super) fn look(
    compiler: &Compiler,
    path: &Path,
    component: Option<&Path>,
    stale: Stale,
) -> Result<Result<Good, Vec<Finding>>, Error> {
    let (manifest, component, texts, folder) = match plugin::find(path, component)? {
        Found::Package(bytes) => match Package::read(&bytes) {
            Err(refusal) => return Ok(Err(vec![refusal.into()])),
            Ok(package) => (
                Ok(package.manifest),
                package.component,
                Texts { manifest: package.manifest_text, wit: package.wit },
                Err(bytes),
            ),
        },
        Found::Folder(folder) => {
            let manifest = folder.parsed();
            // Even with a manifest that is wrong the component is looked at, where it can be found.
            let name = match &manifest {
                Ok(manifest) => manifest.name.clone(),
                Err(_) => path.file_name().map(OsStr::text).unwrap_or_default(),
            };
            let component = match (folder.component(&name, stale), &manifest) {
                (Ok(component), _) => component,
                (Err(_), Err(errors)) => return Ok(Err(manifest_findings(errors))),
                (Err(error), Ok(_))
                    if matches!(error.code, "not_built" | "stale_component") || error.exit_code() == 3 =>
                {
                    return Err(error);
                }
                (Err(error), Ok(_)) => return refused_component(error),
            };
            let texts = Texts { manifest: folder.manifest.clone(), wit: folder.wit()? };
            (manifest, component, texts, Ok(folder))
        }
    };
    let mut findings = match &manifest {
        Ok(manifest) => unsupported(&manifest.grants),
        Err(errors) => manifest_findings(errors),
    };
    let grants = manifest.as_ref().map(|manifest| manifest.grants.clone()).unwrap_or_default();
    let described = describe(compiler, &component, &grants, &mut findings)?;
    if let (Ok(manifest), Some(description)) = (&manifest, &described) {
        let package = interface_package(&description.signature);
        if package != Some(manifest.name.as_str()) {
            let message = format!(
                "plugin.toml says `{}`, but the component exports `{}`",
                manifest.name, description.signature.interface
            );
            let help = format!(
                "set `name = \"{}\"` in plugin.toml, or pack the component of `{}`",
                package.unwrap_or_default(),
                manifest.name
            );
            findings.push(Finding::new("wrong_component", message, help));
        } else {
            findings.extend(wrong_version(manifest, &description.signature.interface, &texts));
        }
    }
    let (Ok(manifest), Some(description), true) = (manifest, described, findings.is_empty()) else {
        return Ok(Err(findings));
    };
    let package = match folder {
        Ok(folder) => match folder.pack(&component) {
            Ok(package) => package,
            Err(error) if error.exit_code() == 2 => return refused_component(error),
            Err(error) => return Err(error),
        },
        Err(bytes) => bytes,
    };
    Ok(Ok(Good { manifest, description, package }))
}

/// An error that says why the plugin cannot be packed; a missing file stays an error.
fn refused_component(error: Error) -> Result<Result<Good, Vec<Finding>>, Error> {
    const FINDINGS: [&str; 4] = ["not_wasm", "invalid_component", "bad_package", "bad_manifest"];
    match FINDINGS.into_iter().find(|code| *code == error.code) {
        Some(code) => Ok(Err(vec![Finding::new(code, error.chain(), error.help.unwrap_or_default())])),
        None => Err(error),
    }
}

/// `face-count` of `acme:face-count/task@1.2.0`.
fn interface_package(signature: &Signature) -> Option<&str> {
    signature.interface.split_once(':')?.1.split_once('/').map(|(package, _)| package)
}

/// What a plugin says about itself, as it is written.
struct Texts {
    /// `plugin.toml`.
    manifest: String,
    /// By path below `wit/`.
    wit: BTreeMap<String, String>,
}

/// The task's own WIT may name no version; if it does, it is the one that is published.
fn wrong_version(manifest: &Manifest, interface: &str, texts: &Texts) -> Option<Finding> {
    let (package, version) = interface.split_once('@')?;
    if version == manifest.version.to_string() {
        return None;
    }
    let package = package.split_once('/').map_or(package, |(package, _)| package);
    let declared = format!("package {package}@");
    let line = |(file, text): (&String, &String)| {
        let at = text.lines().position(|line| line.trim_start().starts_with(&declared))?;
        Some(format!("wit/{file}:{}", at + 1))
    };
    let place = texts.wit.iter().find_map(line).map_or_else(String::new, |place| format!(" ({place})"));
    let message = format!(
        "plugin.toml says version {}, but the component is of `package {package}@{version}`{place}: it exports `{interface}`",
        manifest.version
    );
    let help = format!(
        "write the same version into both, `version = \"{version}\"` or `package {package}@{};`, and build it again",
        manifest.version
    );
    Some(Finding { place: version_place(&texts.manifest), ..Finding::new("wrong_version", message, help) })
}

/// Line and column of the version in `plugin.toml`.
fn version_place(manifest: &str) -> Option<(u32, u32)> {
    #[derive(serde::Deserialize)]
    struct Version {
        version: toml::Spanned<String>,
    }
    let start = toml::from_str::<Version>(manifest).ok()?.version.span().start;
    let before = manifest.get(..start)?;
    let (line, column) =
        (before.matches('\n').count() + 1, before.chars().rev().take_while(|c| *c != '\n').count() + 1);
    Some((u32::try_from(line).ok()?, u32::try_from(column).ok()?))
}

fn manifest_findings(errors: &dovetail_core::manifest::ManifestErrors) -> Vec<Finding> {
    let finding = |error: &dovetail_core::manifest::ManifestError| Finding {
        place: Some((error.line, error.column)),
        ..Finding::new("bad_manifest", error.message.clone(), "")
    };
    errors.0.iter().map(finding).collect()
}

/// What a manifest may ask for and this host cannot give: it would be accepted and ignored.
fn unsupported(grants: &Grants) -> Vec<Finding> {
    if grants.http.is_empty() {
        return Vec::new();
    }
    vec![Finding::new(
        "unsupported_grant",
        "plugin.toml asks for `http`, which this version of the host cannot grant",
        "leave `http` out; data enters a task through its input",
    )]
}

/// Every import that lacks its grant, not only the first.
fn describe(
    compiler: &Compiler,
    component: &[u8],
    grants: &Grants,
    findings: &mut Vec<Finding>,
) -> Result<Option<Description>, Error> {
    let everything = Grants { clocks: true, random: true, http: Vec::new() };
    match compiler.describe(component, &everything) {
        Err(LoadError::Host(error)) => Err(error.into()),
        Err(LoadError::Refused(refusal)) => {
            findings.push(refusal.into());
            Ok(None)
        }
        Ok(description) => {
            for import in &description.imports {
                let GrantClass::Needs(grant) = import.class else { continue };
                let granted = match grant {
                    "clocks" => grants.clocks,
                    "random" => grants.random,
                    _ => false,
                };
                if !granted {
                    let message = format!("it imports `{}`, which needs the grant `{grant}`", import.name);
                    let help =
                        format!("add `{grant} = true` under `[grants]` in plugin.toml, or build the task without it");
                    findings.push(Finding::new("missing_grant", message, help));
                }
            }
            Ok(Some(description))
        }
    }
}

/// `task check`.
pub(super) fn check(app: &App, path: &Path, component: Option<&Path>) -> Result<Exit, Error> {
    match look(&app.compiler()?, path, component, Stale::Warned)? {
        Err(findings) => Ok(refused(app, path, &findings)),
        Ok(good) => {
            app.output.result(|| good_json(&good), || good_text(&good));
            Ok(Exit::Done)
        }
    }
}

/// Prints why a plugin is refused.
pub(super) fn refused(app: &App, path: &Path, findings: &[Finding]) -> Exit {
    app.output.result(
        || json!({ "accepted": false, "errors": findings.iter().map(Finding::to_json).collect::<Vec<_>>() }),
        || {
            let list: String = findings.iter().map(Finding::to_text).collect();
            format!("{} is refused\n{}", path.shown(), indented(&list, 2))
        },
    );
    Exit::Failed
}

pub(super) fn limits_json(limits: &Limits) -> Value {
    json!({ "memory": limits.memory, "time_ms": limits.time_ms, "output": limits.output, "log": limits.log, "handles": limits.handles,
        "artifacts": limits.artifacts })
}

pub(super) fn limits_text(limits: &Limits) -> String {
    format!(
        "memory {}, time {}, output {}, log {}, {} handles, artifacts {}",
        show_size(limits.memory),
        show_duration_ms(limits.time_ms),
        show_size(limits.output),
        show_size(limits.log),
        limits.handles,
        show_size(limits.artifacts)
    )
}

pub(super) fn signature_json(signature: &Signature) -> Value {
    let fields = |fields: &[dovetail_core::wit::Field]| {
        fields
            .iter()
            .map(|field| json!({ "name": dovetail_core::wit::snake(&field.name), "type": field.ty.to_string() }))
            .collect::<Vec<_>>()
    };
    json!({
        "interface": signature.interface,
        "input": fields(&signature.input),
        "output": fields(&signature.output),
        "input_schema": schema::record("input", &signature.input),
        "output_schema": schema::record("output", &signature.output),
    })
}

fn good_json(good: &Good) -> Value {
    let Good { manifest, description, package } = good;
    let imports: Vec<Value> = description
        .imports
        .iter()
        .map(|import| json!({ "name": import.name, "class": class(&import.class) }))
        .collect();
    json!({
        "accepted": true,
        "name": manifest.name,
        "version": manifest.version,
        "description": manifest.description,
        "license": manifest.license,
        "package": dovetail_core::Digest::of(package),
        "pure": description.pure,
        "imports": imports,
        "models": manifest.models,
        "model_kinds": description.opens,
        "signature": signature_json(&description.signature),
        "limits": limits_json(&manifest.limits),
        "grants": grants_json(&manifest.grants),
        "sizes": {
            "package": package.len(), "component": description.component_bytes, "code": description.code_bytes,
            "initial_memory": description.initial_memory,
        },
        "errors": [],
    })
}

/// `host`, `inert`, or `granted:clocks`.
fn class(class: &GrantClass) -> String {
    match class {
        GrantClass::Host => "host".to_owned(),
        GrantClass::Inert => "inert".to_owned(),
        GrantClass::Needs(grant) => format!("granted:{grant}"),
        GrantClass::Unknown => "refused".to_owned(),
    }
}

/// What plugin.toml asks for, whether the component imports it or not: it is what whoever publishes it has to allow.
fn grants_text(asked: &[String]) -> String {
    if asked.is_empty() {
        return "none".to_owned();
    }
    let flags: Vec<String> = asked.iter().map(|grant| format!("--grant {grant}")).collect();
    format!("{} (push needs {})", asked.join(", "), flags.join(" "))
}

/// For which models its steps wait in a fleet; none where it has to do with none.
fn models_text(good: &Good) -> Option<String> {
    let (named, opens) = (good.manifest.models.as_deref(), &good.description.opens);
    let kinds = || opens.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    match named {
        Some([]) if opens.is_empty() => None,
        Some([]) => Some(format!("can do without (opens {}; `models` in plugin.toml names none)", kinds())),
        Some(names) => Some(names.join(", ")),
        None if opens.is_empty() => None,
        None => Some(format!("one of each kind that it opens: {}", kinds())),
    }
}

fn good_text(good: &Good) -> String {
    let Good { manifest, description, package } = good;
    let asked = asked(&manifest.grants);
    // To be sound is not yet to be allowed.
    let when = if asked.is_empty() { "" } else { " once its grants are allowed" };
    let (name, version, about) = (&manifest.name, &manifest.version, &manifest.description);
    let mut text =
        format!("{name}@{version} is accepted{when}\n{about}\n\npackage {}\n", dovetail_core::Digest::of(package));
    let memory = description
        .initial_memory
        .map_or_else(String::new, |memory| format!(", starts with {} of memory", bytes(memory)));
    let (component, code) = (bytes(description.component_bytes), bytes(description.code_bytes));
    text.push_str(&format!(
        "sizes   package {}, component {component}, compiled {code}{memory}\n",
        bytes(package.len() as u64)
    ));
    text.push_str(&format!("limits  {}\n", limits_text(&manifest.limits)));
    text.push_str(&format!("grants  {}\n", grants_text(&asked)));
    let purity = if description.pure {
        "pure: the same input gives the same output"
    } else {
        "not pure: it reaches what a grant names"
    };
    if let Some(models) = models_text(good) {
        text.push_str(&format!("models  {models}\n"));
    }
    text.push_str(&format!("purity  {purity}\n\nimports\n"));
    for import in &description.imports {
        let class = match import.class {
            // Nobody has granted anything: that is done when it is published.
            GrantClass::Needs(grant) => format!("needs:{grant}"),
            _ => class(&import.class),
        };
        text.push_str(&format!("  {class:15} {}\n", import.name));
    }
    text.push_str(&format!("\n{}", show::signature(&description.signature)));
    text
}
