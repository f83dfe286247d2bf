//! The decision cases of `tests/cases/*.json`: reading them, minting what they name, running them through the library.
//!
//! The same cases run through every host, so a file says nothing that only one of them understands. `README.md` beside the files
//! tells the format.

pub mod expand;
pub mod keys;
pub mod run;
