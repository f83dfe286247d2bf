//! What ARCHITECTURE.md claims about the source, checked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// From the bottom up: a module imports only from those before it, or from its own row.
const LAYERS: [&[&str]; 14] = [
    &["time", "encoding", "secret"],
    &["reason", "env"],
    &["http", "path", "seal", "template"],
    &["cookie", "jose"],
    &["claims"],
    &["policy", "oidc"],
    &["rules"],
    &["config"],
    &["provider", "cache", "answer", "forward"],
    &["flow"],
    &["gate", "wire"],
    &["explain"],
    &["host", "cases"],
    &["cli", "main"],
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![path],
        })
        .collect()
}

/// Each source file: its top-level module, and its text without the tests at its end.
fn modules() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&root).into_iter().filter(|path| !path.ends_with("src/lib.rs"));
    files
        .map(|path| {
            let relative = path.strip_prefix(&root).unwrap();
            let top = relative.components().next().unwrap().as_os_str().to_str().unwrap();
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap().to_owned();
            (top.trim_end_matches(".rs").to_owned(), path, text)
        })
        .collect()
}

fn layer(module: &str) -> usize {
    LAYERS.iter().position(|layer| layer.contains(&module)).unwrap_or_else(|| panic!("`{module}` is in no layer"))
}

#[test]
fn imports_point_one_way() {
    for (module, path, text) in modules() {
        for (_, import) in text.match_indices("crate::").map(|(at, name)| (at, &text[at + name.len()..])) {
            let imported: String = import.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            assert!(
                layer(&imported) < layer(&module) || imported == module || layer(&imported) == layer(&module),
                "{}: `{module}` imports `{imported}`",
                path.display()
            );
        }
    }
}

#[test]
fn unsafe_code_is_in_one_file() {
    for (_, path, text) in modules() {
        assert_eq!(text.contains("unsafe {"), path.ends_with("host/envoy/abi.rs"), "{}", path.display());
    }
}

/// The packages of a lock file: the version by name and by what Cargo takes for compatible, of which there is one.
fn locked(path: &str) -> BTreeMap<(String, String), String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let quoted = |line: Option<&str>| line.and_then(|line| line.split('"').nth(1)).unwrap().to_owned();
    let packages = text.split("[[package]]").skip(1).map(|package| {
        let mut lines = package.trim_start().lines();
        let (name, version) = (quoted(lines.next()), quoted(lines.next()));
        let zeros = version.split('.').take_while(|part| *part == "0").count();
        ((name, version.split('.').take(zeros + 1).collect::<Vec<_>>().join(".")), version)
    });
    packages.collect()
}

/// What is fuzzed, counted and tried in Envoy is built of what the gate is built of.
#[test]
fn lock_files_agree() {
    let own = locked("Cargo.lock");
    for path in ["bench/core/Cargo.lock", "bench/noop/Cargo.lock", "fuzz/Cargo.lock", "tests/host-crypto/Cargo.lock"] {
        for (package, version) in locked(path) {
            let expected = own.get(&package).unwrap_or(&version);
            assert_eq!(version, *expected, "{path}: `{}` is not that of Cargo.lock", package.0);
        }
    }
}

#[test]
fn the_page_names_every_module() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let named: BTreeSet<String> =
        modules().into_iter().map(|(module, ..)| module).filter(|module| module != "host").collect();
    let missing: Vec<&String> = named.iter().filter(|module| !page.contains(&format!("`{module}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
