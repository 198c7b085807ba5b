//! `doctor`: checks this machine and each server of its fleet.

use dovetail_service::documents::DoctorCheck;

use crate::app::App;
use crate::exit::Exit;
use crate::table::table;

pub(crate) fn run(app: &App, deep: bool) -> Exit {
    let document = app.service.doctor(deep);
    app.output.result(&document, || {
        let mut rows = Vec::new();
        for check in &document.checks {
            rows.push(vec![grade(check).to_owned(), check.what.clone(), check.found.clone()]);
            if !check.remedy.is_empty() {
                rows.push(vec![String::new(), String::new(), format!("-> {}", check.remedy)]);
            }
        }
        table(&["", "what", "found"], &rows)
    });
    if document.ok { Exit::Done } else { Exit::Failed }
}

fn grade(check: &DoctorCheck) -> &'static str {
    match (check.ok, check.warning) {
        (false, _) => "PROBLEM",
        (true, true) => "WARNING",
        (true, false) => "ok",
    }
}
