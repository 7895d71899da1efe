//! The native binary: arguments in, text and figures out. Exit codes: 0 done, 1 failed, 2 wrong usage.
#![allow(clippy::print_stdout, reason = "stdout is what a command line is for")]
mod activations;
mod args;
mod bench;
mod interrupt;
mod look;
mod model;
mod output;
mod ppl;
mod run;
mod sinks;
mod sinkscan;
mod streameval;
mod tuning;
mod wish;

use args::{Cli, Command};
use brooklet::Error;
use clap::Parser;
use std::process::ExitCode;

/// Runs the command that was asked for and says how it ended.
pub(crate) fn main() -> ExitCode {
    let mut command = Cli::parse().command;
    let result = sinks::look_up(&mut command).and_then(|()| match command {
        Command::Run(args) => run::run(args),
        Command::Devices(args) => look::devices(args),
        Command::Inspect(args) => look::inspect(args),
        Command::Tokenize(args) => look::tokenize(args),
        Command::Logits(args) => look::logits(args),
        Command::Bench(args) => bench::run(&args),
        Command::Ppl(args) => ppl::run(&args),
        Command::Streameval(args) => streameval::run(&args),
        Command::Sinkscan(args) => sinkscan::run(&args),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has left: nothing to do, nothing to complain of.
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("brooklet: {error}");
            ExitCode::from(if matches!(error, Error::Usage(_)) { 2 } else { 1 })
        }
    }
}
