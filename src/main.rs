//! Command line -> session -> text.
mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
