//! One scenario, for callgrind to count the instructions of: `bench/instructions.mjs` runs it.
//!
//! usage: stepgate-bench-core SCENARIO RUNS; without arguments, lists the scenarios

use stepgate_bench_core::{SCENARIOS, Work};

/// Before anything is counted: what is done once, and a token that comes for the second time moves in the cache.
const WARM_UP: usize = 2;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, runs] = arguments.as_slice() else { return list() };
    let (_, prepare) = SCENARIOS.iter().find(|(scenario, _)| scenario == name).expect("a scenario");
    let runs: usize = runs.parse().expect("a number");
    match prepare() {
        Work::Again(mut decide) => {
            (0..WARM_UP).for_each(|_| decide());
            (0..runs).for_each(|_| counted(&mut *decide));
        }
        Work::Afresh(gate, decide) => {
            (0..WARM_UP + runs).for_each(|at| {
                let mut gate = gate();
                if at < WARM_UP { decide(&mut gate) } else { counted(&mut || decide(&mut gate)) }
            });
        }
    }
}

/// Callgrind counts only inside of this function, which it knows by its name.
#[inline(never)]
fn counted(decide: &mut dyn FnMut()) {
    decide();
}

fn list() {
    SCENARIOS.iter().for_each(|(name, _)| println!("{name}"));
}
