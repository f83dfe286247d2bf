//! What the fuzz targets do with an input, apart from the fuzzer: `cargo test` runs the same over all seeds and regressions.

mod keys;
mod text;
mod world;

mod callback;
mod configuration;
mod cookies;
mod discovery;
mod jwks;
mod path;
mod sealed;
mod token;

pub use callback::callback;
pub use configuration::configuration;
pub use cookies::cookies;
pub use discovery::discovery;
pub use jwks::jwks;
pub use path::path;
pub use sealed::sealed;
pub use token::token;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    fn folder(name: &str, target: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(name).join(target)
    }

    /// Runs a target on everything in its folders. Of the seeds, those that are `good` pass, so that the invariants mean
    /// something.
    fn replay(target: &str, run: fn(&[u8]) -> bool, good: &[&str]) {
        for seed in good {
            let path = folder("seeds", target).join(seed);
            assert!(run(&fs::read(&path).unwrap()), "{} does not pass", path.display());
        }
        for folder in ["seeds", "regressions"].map(|name| folder(name, target)) {
            // A target without regressions has no folder for them.
            for entry in fs::read_dir(&folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                println!("{}", path.display());
                run(&fs::read(&path).unwrap());
            }
        }
    }

    macro_rules! replay {
        ($($target:ident: $good:expr;)*) => {
            $(#[test] fn $target() { replay(stringify!($target), super::$target, &$good); })*
        };
    }

    replay! {
        callback: ["query", "form-post", "pushed", "the-issuer-is-named", "a-token-in-chunks"];
        configuration: ["the-least", "all-of-the-provider", "all-of-the-callback"];
        cookies: ["plain", "in-a-header", "chunks", "sealed", "sealed-chunks"];
        discovery: ["all-is-well", "on-demand"];
        jwks: ["ed", "all"];
        path: ["no-rule-at-all"];
        sealed: ["a-login"];
        token: ["the-good-token", "es256", "hs256-by-name"];
    }
}
