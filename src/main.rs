//! Command line -> session -> text.
mod cli;

/// Counts allocations, for `bench --counters`.
#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

fn main() -> std::process::ExitCode {
    cli::main()
}
