// The command-line tool under test.

import { fileURLToPath } from "node:url";

/** The tool, as `cargo test` builds it, and `cargo build`. */
export const TOOL = fileURLToPath(new URL("../../../target/debug/stepgate", import.meta.url));
