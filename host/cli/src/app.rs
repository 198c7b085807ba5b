//! What a command works with: the service, the place where everything is printed, and the options that were typed.

use dovetail_service::Service;

use crate::args::Global;
use crate::output::Output;

pub(crate) struct App {
    pub(crate) service: Service,
    pub(crate) output: Output,
    typed: Global,
}

impl App {
    pub(crate) fn new(service: Service, output: Output, typed: Global) -> Self {
        Self { service, output, typed }
    }

    /// Another command on the same stores, as it is typed.
    pub(crate) fn again(&self, command: &str) -> String {
        let settings = &self.service.settings;
        self.typed.again(command, (!settings.is_fleet() || self.typed.data.is_some()).then_some(&settings.data))
    }
}
