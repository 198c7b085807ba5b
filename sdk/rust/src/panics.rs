//! Reports the place of a panic before the instance ends, so that the host reports a panic and not a trap (see
//! `dovetail:task/logging`).

use std::panic::PanicHookInfo;

use crate::Json;
use crate::bindings::dovetail::task::logging::{self, Level};

/// Replaces the standard hook. Its text would go to standard error, which some targets do not have.
pub(crate) fn install() {
    std::panic::set_hook(Box::new(report));
}

fn report(panic: &PanicHookInfo<'_>) {
    logging::log(
        Level::Error,
        "panic",
        &fields(panic.payload_as_str(), panic.location().map(|l| (l.file(), l.line()))),
    );
}

fn fields(message: Option<&str>, place: Option<(&str, u32)>) -> Vec<(String, String)> {
    let mut fields =
        vec![("panic.message".to_owned(), Json::from(message.unwrap_or("a payload that is not text")).into_text())];
    if let Some((file, line)) = place {
        fields.push(("panic.file".to_owned(), Json::from(file).into_text()));
        fields.push(("panic.line".to_owned(), Json::from(line).into_text()));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::fields;

    #[test]
    fn a_panic_tells_its_place() {
        let told = fields(Some("no \"face\""), Some(("src/lib.rs", 7)));
        let told: Vec<_> = told.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(told, [r#"panic.message="no \"face\"""#, r#"panic.file="src/lib.rs""#, "panic.line=7"]);
        assert_eq!(fields(None, None).len(), 1);
    }
}
