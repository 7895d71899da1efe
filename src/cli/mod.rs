//! The native binary: arguments in, text and figures out. Exit codes: 0 done, 1 failed, 2 wrong usage.
#![allow(clippy::print_stdout, reason = "stdout is what a command line is for")]
mod activations;
#[cfg(feature = "serve")]
mod app;
mod args;
mod bench;
mod chat;
#[cfg(feature = "dist")]
mod dist;
mod fetch;
mod grammar;
mod interrupt;
mod look;
mod model;
mod output;
mod pace;
mod ppl;
mod run;
mod sampling;
mod saved;
#[cfg(feature = "serve")]
mod serve;
mod sinks;
mod sinkscan;
mod soak;
mod streameval;
mod tuning;
mod weights;
mod wish;

use args::{Cli, Command};
use brooklet::Error;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use std::process::ExitCode;

/// Runs the command that was asked for and says how it ended.
pub(crate) fn main() -> ExitCode {
    #[cfg(feature = "dist")]
    if let Some(folder) = dist::asked() {
        return ended(dist::write(&folder));
    }
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let mut command = cli.command;
    let ready = fetch::bring(&mut command).and_then(|()| sinks::look_up(&mut command));
    let result = ready.and_then(|()| match command {
        Command::Run(args) => run::run(args, &given(&matches)),
        Command::Chat(args) => chat::run(&args, &given(&matches)),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(&args, &given(&matches)),
        #[cfg(feature = "serve")]
        Command::App(args) => app::run(&args, &given(&matches)),
        Command::Soak(args) => soak::run(&args, &given(&matches)),
        Command::Devices(args) => look::devices(args),
        Command::Inspect(args) => look::inspect(args),
        Command::Tokenize(args) => look::tokenize(args),
        Command::Logits(args) => look::logits(args),
        Command::Bench(args) => bench::run(&args),
        Command::Ppl(args) => ppl::run(&args),
        Command::Streameval(args) => streameval::run(&args),
        Command::Sinkscan(args) => sinkscan::run(&args),
        Command::Pull(args) => fetch::pull(&args),
        Command::Models(args) => fetch::models(args),
        Command::Convert(args) => weights::convert(&args),
    });
    ended(result)
}

fn ended(result: brooklet::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has left: nothing to do, nothing to complain of.
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("brooklet: {}", error.worded(sampling::flag));
            ExitCode::from(if error.is_usage() { 2 } else { 1 })
        }
    }
}

/// The options of the command that were given, by the names of their fields: what is left out says nothing.
fn given(matches: &ArgMatches) -> Vec<String> {
    let Some((_, matches)) = matches.subcommand() else { return Vec::new() };
    let told = |id: &&clap::Id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
    matches.ids().filter(told).map(ToString::to_string).collect()
}
