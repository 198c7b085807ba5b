//! What the host sees in a plugin, or every reason to refuse the plugin.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use dovetail_core::Digest;
use dovetail_core::manifest::{Grants, Manifest};
use dovetail_core::wit::Signature;
use dovetail_runtime::{Compiler, Description, GrantClass, LoadError, Package, Refusal};

use super::folder::{Found, Stale, find};
use crate::documents::{
    AcceptedTask, ImportDocument, RefusedTask, SignatureDocument, TaskCheck, TaskFinding, TaskSizes,
};
use crate::paths::Shown as _;
use crate::{Blame, Error};

fn of_refusal(refusal: Refusal) -> TaskFinding {
    TaskFinding::new(refusal.code, refusal.message, refusal.help)
}

/// A plugin that can be published.
pub struct Good {
    pub manifest: Manifest,
    pub description: Description,
    pub package: Vec<u8>,
}

/// Looks at a plugin; the findings if it is refused.
///
/// # Errors
/// Only a failure to look.
pub(crate) fn look(
    compiler: &Compiler,
    path: &Path,
    component: Option<&Path>,
    stale: Stale,
) -> Result<Result<Good, Vec<TaskFinding>>, Error> {
    let (manifest, component, texts, folder) = match find(path, component)? {
        Found::Package(bytes) => match Package::read(&bytes) {
            Err(refusal) => return Ok(Err(vec![of_refusal(refusal)])),
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
                    if matches!(error.code, "not_built" | "stale_component") || error.blame == Blame::Host =>
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
            findings.push(TaskFinding::new("wrong_component", message, help));
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
            Err(error) if error.blame == Blame::Usage => return refused_component(error),
            Err(error) => return Err(error),
        },
        Err(bytes) => bytes,
    };
    Ok(Ok(Good { manifest, description, package }))
}

/// An error that says why the plugin cannot be packed; a missing file stays an error.
fn refused_component(error: Error) -> Result<Result<Good, Vec<TaskFinding>>, Error> {
    const FINDINGS: [&str; 4] = ["not_wasm", "invalid_component", "bad_package", "bad_manifest"];
    match FINDINGS.into_iter().find(|code| *code == error.code) {
        Some(code) => Ok(Err(vec![TaskFinding::new(code, error.chain(), error.help.unwrap_or_default())])),
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
fn wrong_version(manifest: &Manifest, interface: &str, texts: &Texts) -> Option<TaskFinding> {
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
    Some(TaskFinding::new("wrong_version", message, help).at(version_place(&texts.manifest)))
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

fn manifest_findings(errors: &dovetail_core::manifest::ManifestErrors) -> Vec<TaskFinding> {
    let finding = |error: &dovetail_core::manifest::ManifestError| {
        TaskFinding::new("bad_manifest", error.message.clone(), "").at(Some((error.line, error.column)))
    };
    errors.0.iter().map(finding).collect()
}

/// What a manifest may ask for and this host cannot give: it would be accepted and ignored.
fn unsupported(grants: &Grants) -> Vec<TaskFinding> {
    if grants.http.is_empty() {
        return Vec::new();
    }
    vec![TaskFinding::new(
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
    findings: &mut Vec<TaskFinding>,
) -> Result<Option<Description>, Error> {
    let everything = Grants { clocks: true, random: true, http: Vec::new() };
    match compiler.describe(component, &everything) {
        Err(LoadError::Host(error)) => Err(error.into()),
        Err(LoadError::Refused(refusal)) => {
            findings.push(of_refusal(refusal));
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
                    findings.push(TaskFinding::new("missing_grant", message, help));
                }
            }
            Ok(Some(description))
        }
    }
}

impl Good {
    /// What `task check` tells of it.
    #[must_use]
    pub fn document(&self) -> AcceptedTask {
        let Self { manifest, description, package } = self;
        let imports = description.imports.iter();
        AcceptedTask {
            accepted: true,
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            description: manifest.description.clone(),
            license: manifest.license.clone(),
            package: Digest::of(package),
            pure: description.pure,
            imports: imports.map(|i| ImportDocument { name: i.name.clone(), class: class(&i.class) }).collect(),
            models: manifest.models.clone(),
            model_kinds: description.opens.clone(),
            signature: SignatureDocument::of(&description.signature),
            limits: manifest.limits,
            grants: crate::documents::grants(&manifest.grants),
            sizes: TaskSizes {
                package: package.len(),
                component: description.component_bytes,
                code: description.code_bytes,
                initial_memory: description.initial_memory,
            },
            errors: Vec::new(),
        }
    }
}

impl TaskCheck {
    /// A plugin that is refused for these reasons.
    #[must_use]
    pub fn refused(findings: &[TaskFinding]) -> Self {
        Self::Refused(RefusedTask { accepted: false, errors: findings.to_vec() })
    }
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
