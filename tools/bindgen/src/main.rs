//! `stepgate-bindgen MODULE.wasm DIRECTORY`: writes `stepgate_core.js` and `stepgate_core_bg.wasm`.

use std::process::ExitCode;

use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(module), Some(directory), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        eprintln!("usage: stepgate-bindgen MODULE.wasm DIRECTORY");
        return ExitCode::from(2);
    };
    let mut bindgen = Bindgen::new();
    bindgen.input_path(&module).out_name("stepgate_core").typescript(false).remove_producers_section(true);
    match bindgen.web(true).and_then(|bindgen| bindgen.generate(&directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stepgate-bindgen: {module}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
