//! The context of a command: the service, the output, and the global options.

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

    /// A command line that runs another command on the same stores.
    pub(crate) fn again(&self, command: &str) -> String {
        let settings = &self.service.settings;
        self.typed.again(command, (!settings.is_fleet() || self.typed.data.is_some()).then_some(&settings.data))
    }
}
