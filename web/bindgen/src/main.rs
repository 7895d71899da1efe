//! `brooklet-bindgen WASM FOLDER NAME`: the JavaScript module NAME.js around a wasm file. A library call instead of an installed
//! command, so that Cargo.lock pins it and nothing is left on the machine.
use std::process::ExitCode;
use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [wasm, folder, name] = &arguments[..] else {
        eprintln!("usage: brooklet-bindgen WASM FOLDER NAME");
        return ExitCode::from(2);
    };
    let made = Bindgen::new()
        .input_path(wasm)
        .out_name(name)
        .omit_default_module_path(false)
        .web(true)
        .and_then(|bindgen| {
            bindgen
                .typescript(false)
                .remove_name_section(true)
                .remove_producers_section(true)
                .generate(folder)
        });
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("brooklet-bindgen: {wasm}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
