//! How long decisions take natively: `make bench-core`. Times of one run are comparable, those of two machines are not;
//! `make instructions` counts what can be compared.

use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use stepgate_bench_core::{SCENARIOS, Work};

fn decisions(criterion: &mut Criterion) {
    for (name, prepare) in SCENARIOS {
        // Prepared when it is its turn, and not at all when it was not chosen.
        criterion.bench_function(name, |bencher| match prepare() {
            Work::Again(mut decide) => bencher.iter(&mut decide),
            Work::Afresh(gate, decide) => bencher.iter_batched_ref(gate, |gate| decide(gate), BatchSize::SmallInput),
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = decisions
}
criterion_main!(benches);
