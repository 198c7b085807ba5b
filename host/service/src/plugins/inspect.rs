//! Inspection of a plugin: a description of it, or all reasons to refuse it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use dovetail_core::Digest;
use dovetail_core::keys::VersionKey;
use dovetail_core::manifest::{Grants, Manifest};
use dovetail_core::wit::Signature;
use dovetail_runtime::{Compiler, Description, GrantClass, LoadError, Package, Refusal};

use super::folder::{PluginSource, Stale, find};
use crate::documents::{
    AcceptedTask, ImportDocument, RefusedTask, SignatureDocument, TaskCheck, TaskFinding, TaskSizes,
};
use crate::paths::Shown as _;
use crate::{Blame, Error};

fn of_refusal(refusal: Refusal) -> TaskFinding {
    TaskFinding::new(refusal.code, refusal.message, refusal.help)
}

/// A plugin that can be published.
pub struct AcceptedPlugin {
    /// The manifest, `plugin.toml`.
    pub manifest: Manifest,
    /// The imports, types and sizes of the component.
    pub description: Description,
    /// The bytes of the package.
    pub package: Vec<u8>,
}

/// Inspects a plugin. The inner error has the findings if the plugin is refused.
///
/// # Errors
/// If the plugin cannot be inspected: a missing file, a component that is not built, a failure of the host.
pub(crate) fn look(
    compiler: &Compiler,
    path: &Path,
    component: Option<&Path>,
    stale: Stale,
) -> Result<Result<AcceptedPlugin, Vec<TaskFinding>>, Error> {
    let (manifest, component, texts, folder) = match find(path, component)? {
        PluginSource::Package(bytes) => match Package::read(&bytes) {
            Err(refusal) => return Ok(Err(vec![of_refusal(refusal)])),
            Ok(package) => (
                Ok(package.manifest),
                package.component,
                Texts { manifest: package.manifest_text, wit: package.wit },
                Err(bytes),
            ),
        },
        PluginSource::Folder(folder) => {
            let manifest = folder.parsed();
            // The component is inspected also if the manifest is wrong, so that all findings are given at once.
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
    Ok(Ok(AcceptedPlugin { manifest, description, package }))
}

/// Makes a finding of an error that is about the plugin's content. Other errors, such as a missing file, stay errors.
fn refused_component(error: Error) -> Result<Result<AcceptedPlugin, Vec<TaskFinding>>, Error> {
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

/// The texts of a plugin, to find the places of errors.
struct Texts {
    /// `plugin.toml`.
    manifest: String,
    /// WIT files, by path below `wit/`.
    wit: BTreeMap<String, String>,
}

/// The finding if the component's WIT package has another version than `plugin.toml`. A WIT package without a version
/// is accepted.
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
        "plugin.toml says version {}, but the component is of `package {package}@{version}`{place}: it exports \
         `{interface}`",
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

/// Findings for grants that a manifest may ask for and that this version cannot give: they would have no effect.
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

/// Describes the component, and adds a finding for each import whose grant the manifest does not ask for.
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

impl AcceptedPlugin {
    /// The name and the version: `face-detection@1.0.0`.
    #[must_use]
    pub fn reference(&self) -> String {
        VersionKey::new(&self.manifest.name, &self.manifest.version).to_string()
    }

    /// The document of `task check`.
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
            grants: manifest.grants.recorded(),
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
    /// The document of a refused plugin.
    #[must_use]
    pub fn refused(findings: &[TaskFinding]) -> Self {
        Self::Refused(RefusedTask { accepted: false, errors: findings.to_vec() })
    }
}

/// The class of an import in documents: `host`, `inert`, `granted:GRANT` or `refused`.
fn class(class: &GrantClass) -> String {
    match class {
        GrantClass::Host => "host".to_owned(),
        GrantClass::Inert => "inert".to_owned(),
        GrantClass::Needs(grant) => format!("granted:{grant}"),
        GrantClass::Unknown => "refused".to_owned(),
    }
}
