//! `task`: checks, packs, publishes, shows and tries plugins.

mod check;
mod publish;
mod try_out;

use dovetail_service::Error;

use crate::app::App;
use crate::args::Task;
use crate::exit::Exit;

pub(crate) fn run(command: &Task, app: &App) -> Result<Exit, Error> {
    match command {
        Task::Check { path, component } => check::check(app, path, component.as_deref()),
        Task::Pack { folder, out, component, strip } => {
            publish::pack(app, folder, out.as_deref(), component.as_deref(), *strip)
        }
        Task::Push { paths, grant } => publish::push(app, paths, grant),
        Task::List => publish::list(app),
        Task::Show { task } => publish::show(app, task),
        Task::Run { task, input, grant, save } => {
            try_out::run(app, &try_out::Request { task, input, grant, save: save.as_deref() })
        }
    }
}
