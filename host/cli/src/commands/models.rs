//! `models`: installs and lists models.

use std::path::{Path, PathBuf};

use dovetail_service::Error;
use dovetail_service::documents::{InstalledModel, ModelName, ModelSummary, PulledModels};
use dovetail_service::files::{MAX_PHOTOGRAPH, read};
use dovetail_service::models::engine::EngineSource;
use dovetail_service::models::{DEFAULT_MODELS, ModelPackage};
use dovetail_service::paths::Shown as _;
use dovetail_service::words::{bytes, count};

use crate::app::App;
use crate::args::Models;
use crate::exit::Exit;
use crate::results::{Target, holds, targets};
use crate::table::table;
use crate::unread::print_list;

pub(crate) fn run(command: &Models, app: &App) -> Result<Exit, Error> {
    match command {
        Models::Pull { from, engine, photographs, force } => {
            let engine = match (engine, from) {
                (Some(file), _) => EngineSource::File(file),
                // The user named a package, perhaps because there is no network.
                (None, Some(_)) => EngineSource::None,
                (None, None) => EngineSource::Index,
            };
            pull(app, from.as_deref(), engine, photographs.as_deref(), *force)
        }
        Models::List => {
            let models = app.service.list_models()?;
            let key = |name: &str| ModelName { name: name.to_owned() };
            print_list(app, &models, "model", key, ModelSummary::clone, list);
            Ok(Exit::Done)
        }
        Models::Add { file, manifest } => {
            let added = app.service.add_model(file, manifest)?;
            app.output.result(&added, || format!("{} {}  {}\n", how(&added), added.model.name, added.model.digest));
            Ok(Exit::Done)
        }
    }
}

fn how(model: &InstalledModel) -> &'static str {
    match (model.installed, model.repaired) {
        (true, _) => "installed",
        (false, true) => "repaired",
        (false, false) => "already installed",
    }
}

fn pull(
    app: &App,
    from: Option<&Path>,
    engine: EngineSource<'_>,
    photographs: Option<&Path>,
    force: bool,
) -> Result<Exit, Error> {
    let (mut models, mut copied) = (Vec::new(), Vec::new());
    // First, because it needs no package of npm. Without a source there is only a notice, which comes last.
    let ahead = !matches!(engine, EngineSource::None);
    let mut installed = None;
    if ahead {
        installed = app.service.install_engine(engine, &app.output)?;
    }
    if photographs.is_some() || from.is_some() || !app.service.has_default_models()? {
        let package = app.service.model_package(from, &app.output)?;
        // The folder is checked before a model is installed.
        let photographs = photographs.map(|folder| Photographs::plan(&package, folder, force)).transpose()?;
        models = app.service.install_models(&package)?;
        if let Some(photographs) = photographs {
            copied = photographs.copy()?;
        }
    }
    app.service.publish_default_models()?;
    if !ahead {
        installed = app.service.install_engine(engine, &app.output)?;
    }
    let photographs = copied.iter().map(|path| path.text()).collect();
    let document = PulledModels { models, engine: installed, photographs, complete: true };
    app.output.result(&document, || pulled(&document));
    Ok(Exit::Done)
}

fn pulled(document: &PulledModels) -> String {
    let engine = document.engine.as_ref().map_or_else(String::new, |engine| {
        let how = if engine.installed { "installed" } else { "already installed" };
        format!("engine {} {} {how}: {}\n", engine.name, engine.version, engine.library)
    });
    if document.models.is_empty() {
        return format!("all {} models are installed already\n{engine}", DEFAULT_MODELS.len());
    }
    let row = |one: &InstalledModel| {
        let model = &one.model;
        vec![model.name.clone(), model.kind.name().to_owned(), how(one).to_owned(), model.digest.to_string()]
    };
    let mut text = table(&["model", "kind", "", "digest"], &document.models.iter().map(row).collect::<Vec<_>>());
    if !document.photographs.is_empty() {
        text.push_str(&format!("{} copied\n", count(document.photographs.len(), "photograph")));
    }
    text + &engine
}

/// Photographs of the package, and the folder for copies of them.
struct Photographs<'a> {
    folder: &'a Path,
    /// The path of each copy.
    copies: Vec<PathBuf>,
    /// The copies that do not exist yet.
    missing: Vec<(Target, Vec<u8>)>,
}

impl<'a> Photographs<'a> {
    fn plan(package: &ModelPackage, folder: &'a Path, force: bool) -> Result<Self, Error> {
        let (mut copies, mut missing) = (Vec::new(), Vec::new());
        for file in package.photographs()? {
            let Some(name) = file.file_name() else { continue };
            let (path, content) = (folder.join(name), read(&file, MAX_PHOTOGRAPH)?);
            if !holds(&path, &content) {
                missing.push((path.clone(), content));
            }
            copies.push(path);
        }
        let remedy = "name another folder with --photographs, or move these files away; --force replaces files";
        let targets = targets(missing.iter().map(|(path, _)| path.clone()), |_, _| Ok(force), remedy)?;
        let missing = targets.into_iter().zip(missing.into_iter().map(|(_, content)| content)).collect();
        Ok(Self { folder, copies, missing })
    }

    fn copy(self) -> Result<Vec<PathBuf>, Error> {
        dovetail_service::make_folder(self.folder).map_err(|e| Error::write(self.folder, e))?;
        for (target, content) in &self.missing {
            target.write(content)?;
        }
        Ok(self.copies)
    }
}

fn list(models: &[ModelSummary]) -> String {
    if models.is_empty() {
        return "no models yet; install the default ones with `dovetail models pull`\n".to_owned();
    }
    let row = |ModelSummary { model, source, bytes: size, .. }: &ModelSummary| {
        vec![
            model.name.clone(),
            model.kind.name().to_owned(),
            model.aliases.join(", "),
            bytes(*size),
            model.digest.to_string().chars().take(19).collect(),
            source.clone().unwrap_or_default(),
        ]
    };
    table(&["model", "kind", "also", " size", "digest", "source"], &models.iter().map(row).collect::<Vec<_>>())
}
