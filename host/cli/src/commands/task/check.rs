//! `task check`: prints the inspection of a plugin, or all reasons to refuse the plugin.

use std::path::Path;

use dovetail_service::documents::{TaskCheck, TaskFinding};
use dovetail_service::paths::Shown as _;
use dovetail_service::plugins::{AcceptedPlugin, GrantClass, Stale, asked, show_signature};
use dovetail_service::words::bytes;
use dovetail_service::{Digest, Error, Limits, show_duration_ms, show_size};

use crate::app::App;
use crate::exit::Exit;
use crate::table::indented;

/// `task check`.
pub(super) fn check(app: &App, path: &Path, component: Option<&Path>) -> Result<Exit, Error> {
    match app.service.look_at_plugin(path, component, Stale::Warned)? {
        Err(findings) => Ok(refused(app, path, &findings)),
        Ok(good) => {
            app.output.result(&TaskCheck::Accepted(Box::new(good.document())), || good_text(&good));
            Ok(Exit::Done)
        }
    }
}

/// Prints the findings of a refused plugin.
pub(super) fn refused(app: &App, path: &Path, findings: &[TaskFinding]) -> Exit {
    app.output.result(&TaskCheck::refused(findings), || {
        let list: String = findings.iter().map(finding_text).collect();
        format!("{} is refused\n{}", path.shown(), indented(&list, 2))
    });
    Exit::Failed
}

fn finding_text(finding: &TaskFinding) -> String {
    let TaskFinding { code, message, help, line, column, .. } = finding;
    let place = line.zip(*column).map_or_else(String::new, |(line, column)| format!("plugin.toml:{line}:{column} "));
    let help = if help.is_empty() { String::new() } else { format!("\n    help   {help}") };
    format!("{place}error[{code}]: {message}{help}\n")
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

/// The grants in plugin.toml, which the publisher must allow, also if the component does not import them.
fn grants_text(asked: &[String]) -> String {
    if asked.is_empty() {
        return "none".to_owned();
    }
    let flags: Vec<String> = asked.iter().map(|grant| format!("--grant {grant}")).collect();
    format!("{} (push needs {})", asked.join(", "), flags.join(" "))
}

/// The models that the task's steps wait for in a fleet. None if the task uses no model.
fn models_text(good: &AcceptedPlugin) -> Option<String> {
    let (named, opens) = (good.manifest.models.as_deref(), &good.description.opens);
    let kinds = || opens.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    match named {
        Some([]) if opens.is_empty() => None,
        Some([]) => Some(format!("none required (it opens {}; `models` in plugin.toml names none)", kinds())),
        Some(names) => Some(names.join(", ")),
        None if opens.is_empty() => None,
        None => Some(format!("one of each kind that it opens: {}", kinds())),
    }
}

fn good_text(good: &AcceptedPlugin) -> String {
    let AcceptedPlugin { manifest, description, package } = good;
    let asked = asked(&manifest.grants);
    // An accepted plugin still needs its grants to be allowed.
    let when = if asked.is_empty() { "" } else { " once its grants are allowed" };
    let (reference, about) = (good.reference(), &manifest.description);
    let mut text = format!("{reference} is accepted{when}\n{about}\n\npackage {}\n", Digest::of(package));
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
    let purity =
        if description.pure { "pure: the same input gives the same output" } else { "not pure: it uses its grants" };
    if let Some(models) = models_text(good) {
        text.push_str(&format!("models  {models}\n"));
    }
    text.push_str(&format!("purity  {purity}\n\nimports\n"));
    for (import, shown) in description.imports.iter().zip(good.document().imports) {
        let class = match import.class {
            // Grants are given when the plugin is published, so that `granted:` would be wrong here.
            GrantClass::Needs(grant) => format!("needs:{grant}"),
            _ => shown.class,
        };
        text.push_str(&format!("  {class:15} {}\n", import.name));
    }
    text.push_str(&format!("\n{}", show_signature(&description.signature)));
    text
}
