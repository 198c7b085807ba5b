//! WASI interfaces that need no grant. wasmtime implements them with an empty context; the wrappers here count and time
//! the calls as for every other host function.
//!
//! Interfaces for files, folders, terminals and stream errors are not here: no guest ever holds such a handle, so no
//! guest can call their functions.

use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi::cli::WasiCliView as _;
use wasmtime_wasi::filesystem::WasiFilesystemView as _;
use wasmtime_wasi::p2::bindings::cli::{environment, exit, stdin, terminal_stderr, terminal_stdin, terminal_stdout};
use wasmtime_wasi::p2::bindings::filesystem::preopens;
use wasmtime_wasi::p2::bindings::random::insecure_seed;
use wasmtime_wasi::p2::bindings::sync::io::{poll, streams};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, StreamError, StreamResult};
use wasmtime_wasi::random::WasiRandomView as _;

use crate::state::State;

type Result<T> = wasmtime::Result<T>;

impl environment::Host for State {
    fn get_environment(&mut self) -> Result<Vec<(String, String)>> {
        self.host("wasi:cli/environment.get-environment", |state| environment::Host::get_environment(&mut state.cli()))
    }

    fn get_arguments(&mut self) -> Result<Vec<String>> {
        self.host("wasi:cli/environment.get-arguments", |state| environment::Host::get_arguments(&mut state.cli()))
    }

    fn initial_cwd(&mut self) -> Result<Option<String>> {
        self.host("wasi:cli/environment.initial-cwd", |state| environment::Host::initial_cwd(&mut state.cli()))
    }
}

impl exit::Host for State {
    fn exit(&mut self, status: std::result::Result<(), ()>) -> Result<()> {
        self.host("wasi:cli/exit.exit", |state| exit::Host::exit(&mut state.cli(), status))
    }

    fn exit_with_code(&mut self, status: u8) -> Result<()> {
        self.host("wasi:cli/exit.exit-with-code", |state| exit::Host::exit_with_code(&mut state.cli(), status))
    }
}

impl stdin::Host for State {
    fn get_stdin(&mut self) -> Result<Resource<DynInputStream>> {
        self.host("wasi:cli/stdin.get-stdin", |state| stdin::Host::get_stdin(&mut state.cli()))
    }
}

impl terminal_stdin::Host for State {
    fn get_terminal_stdin(&mut self) -> Result<Option<Resource<terminal_stdin::TerminalInput>>> {
        self.host("wasi:cli/terminal-stdin.get-terminal-stdin", |state| {
            terminal_stdin::Host::get_terminal_stdin(&mut state.cli())
        })
    }
}

impl terminal_stdout::Host for State {
    fn get_terminal_stdout(&mut self) -> Result<Option<Resource<terminal_stdout::TerminalOutput>>> {
        self.host("wasi:cli/terminal-stdout.get-terminal-stdout", |state| {
            terminal_stdout::Host::get_terminal_stdout(&mut state.cli())
        })
    }
}

impl terminal_stderr::Host for State {
    fn get_terminal_stderr(&mut self) -> Result<Option<Resource<terminal_stderr::TerminalOutput>>> {
        self.host("wasi:cli/terminal-stderr.get-terminal-stderr", |state| {
            terminal_stderr::Host::get_terminal_stderr(&mut state.cli())
        })
    }
}

impl preopens::Host for State {
    fn get_directories(&mut self) -> Result<Vec<(Resource<preopens::Descriptor>, String)>> {
        self.host("wasi:filesystem/preopens.get-directories", |state| {
            preopens::Host::get_directories(&mut state.filesystem())
        })
    }
}

impl insecure_seed::Host for State {
    fn insecure_seed(&mut self) -> Result<(u64, u64)> {
        self.host("wasi:random/insecure-seed.insecure-seed", |state| insecure_seed::Host::insecure_seed(state.random()))
    }
}

impl poll::Host for State {
    fn poll(&mut self, all: Vec<Resource<DynPollable>>) -> Result<Vec<u32>> {
        self.host("wasi:io/poll.poll", |state| poll::Host::poll(state.wasi_table(), all))
    }
}

impl poll::HostPollable for State {
    fn ready(&mut self, this: Resource<DynPollable>) -> Result<bool> {
        self.host("wasi:io/poll.pollable.ready", |state| poll::HostPollable::ready(state.wasi_table(), this))
    }

    fn block(&mut self, this: Resource<DynPollable>) -> Result<()> {
        self.host("wasi:io/poll.pollable.block", |state| poll::HostPollable::block(state.wasi_table(), this))
    }

    fn drop(&mut self, this: Resource<DynPollable>) -> Result<()> {
        poll::HostPollable::drop(self.wasi_table(), this)
    }
}

impl State {
    /// Calls a function of a stream. The guest gets the stream's own errors; a panic ends the attempt.
    fn stream<T>(
        &mut self,
        name: &'static str,
        work: impl FnOnce(&mut ResourceTable) -> StreamResult<T>,
    ) -> StreamResult<T> {
        self.host(name, |state| Result::Ok(work(state.wasi_table()))).map_err(StreamError::Trap)?
    }
}

impl streams::Host for State {
    fn convert_stream_error(&mut self, error: StreamError) -> Result<streams::StreamError> {
        streams::Host::convert_stream_error(self.wasi_table(), error)
    }
}

impl streams::HostInputStream for State {
    fn read(&mut self, this: Resource<DynInputStream>, length: u64) -> StreamResult<Vec<u8>> {
        self.stream("wasi:io/streams.input-stream.read", |table| streams::HostInputStream::read(table, this, length))
    }

    fn blocking_read(&mut self, this: Resource<DynInputStream>, length: u64) -> StreamResult<Vec<u8>> {
        self.stream("wasi:io/streams.input-stream.blocking-read", |table| {
            streams::HostInputStream::blocking_read(table, this, length)
        })
    }

    fn skip(&mut self, this: Resource<DynInputStream>, length: u64) -> StreamResult<u64> {
        self.stream("wasi:io/streams.input-stream.skip", |table| streams::HostInputStream::skip(table, this, length))
    }

    fn blocking_skip(&mut self, this: Resource<DynInputStream>, length: u64) -> StreamResult<u64> {
        self.stream("wasi:io/streams.input-stream.blocking-skip", |table| {
            streams::HostInputStream::blocking_skip(table, this, length)
        })
    }

    fn subscribe(&mut self, this: Resource<DynInputStream>) -> Result<Resource<DynPollable>> {
        self.host("wasi:io/streams.input-stream.subscribe", |state| {
            streams::HostInputStream::subscribe(state.wasi_table(), this)
        })
    }

    fn drop(&mut self, this: Resource<DynInputStream>) -> Result<()> {
        streams::HostInputStream::drop(self.wasi_table(), this)
    }
}

impl streams::HostOutputStream for State {
    fn check_write(&mut self, this: Resource<DynOutputStream>) -> StreamResult<u64> {
        self.stream("wasi:io/streams.output-stream.check-write", |table| {
            streams::HostOutputStream::check_write(table, this)
        })
    }

    fn write(&mut self, this: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        self.stream("wasi:io/streams.output-stream.write", |table| streams::HostOutputStream::write(table, this, bytes))
    }

    fn blocking_write_and_flush(&mut self, this: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        let name = "wasi:io/streams.output-stream.blocking-write-and-flush";
        self.stream(name, |table| streams::HostOutputStream::blocking_write_and_flush(table, this, bytes))
    }

    fn flush(&mut self, this: Resource<DynOutputStream>) -> StreamResult<()> {
        self.stream("wasi:io/streams.output-stream.flush", |table| streams::HostOutputStream::flush(table, this))
    }

    fn blocking_flush(&mut self, this: Resource<DynOutputStream>) -> StreamResult<()> {
        self.stream("wasi:io/streams.output-stream.blocking-flush", |table| {
            streams::HostOutputStream::blocking_flush(table, this)
        })
    }

    fn subscribe(&mut self, this: Resource<DynOutputStream>) -> Result<Resource<DynPollable>> {
        self.host("wasi:io/streams.output-stream.subscribe", |state| {
            streams::HostOutputStream::subscribe(state.wasi_table(), this)
        })
    }

    fn write_zeroes(&mut self, this: Resource<DynOutputStream>, length: u64) -> StreamResult<()> {
        self.stream("wasi:io/streams.output-stream.write-zeroes", |table| {
            streams::HostOutputStream::write_zeroes(table, this, length)
        })
    }

    fn blocking_write_zeroes_and_flush(&mut self, this: Resource<DynOutputStream>, length: u64) -> StreamResult<()> {
        let name = "wasi:io/streams.output-stream.blocking-write-zeroes-and-flush";
        self.stream(name, |table| streams::HostOutputStream::blocking_write_zeroes_and_flush(table, this, length))
    }

    fn splice(
        &mut self,
        this: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
        length: u64,
    ) -> StreamResult<u64> {
        self.stream("wasi:io/streams.output-stream.splice", |table| {
            streams::HostOutputStream::splice(table, this, from, length)
        })
    }

    fn blocking_splice(
        &mut self,
        this: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
        length: u64,
    ) -> StreamResult<u64> {
        self.stream("wasi:io/streams.output-stream.blocking-splice", |table| {
            streams::HostOutputStream::blocking_splice(table, this, from, length)
        })
    }

    fn drop(&mut self, this: Resource<DynOutputStream>) -> Result<()> {
        streams::HostOutputStream::drop(self.wasi_table(), this)
    }
}
