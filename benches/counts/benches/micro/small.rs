//! What is done a few times for each row or batch: comparing keys, counting memory, taking a lock.

use std::hint::black_box;

use criterion::Criterion;
use internal_key::{InternalKey, Kind, SeqNo, Trailer, key_head};
use lock_meter::Mutex;
use memory_budget::MemoryBudget;

pub(crate) fn benches(c: &mut Criterion) {
    let trailer = |seqno| Trailer::new(SeqNo::new(seqno).expect("a small number"), Kind::Put);
    let (left, right) = (b"user00000000000000000001", b"user00000000000000000002");
    let (left, right) = (InternalKey::new(left, trailer(7)), InternalKey::new(right, trailer(9)));
    c.bench_function("internal-key/compare", |b| b.iter(|| black_box(left).cmp(&black_box(right))));
    c.bench_function("internal-key/head", |b| b.iter(|| key_head(black_box(left.user_key))));

    let budget = MemoryBudget::new(64 << 20, 0);
    c.bench_function("memory-budget/a grant that nothing is asked of", |b| {
        b.iter(|| black_box(budget.no_grant()).bytes());
    });
    c.bench_function("memory-budget/grow a grant, spend it and give it back", |b| {
        b.iter(|| {
            let mut grant = budget.no_grant();
            assert!(grant.grow_to(black_box(4096)));
            grant.spend(4096);
            drop(grant);
            budget.give_back(4096);
        });
    });
    c.bench_function("memory-budget/ask for more than there is", |b| {
        b.iter(|| assert!(!budget.try_take(black_box(65 << 20))));
    });

    let metered = Mutex::new(0_u64);
    c.bench_function("lock-meter/lock and unlock", |b| b.iter(|| *metered.lock() += 1));
    assert_eq!(metered.costs().contended, 0, "one thread");
    let plain = std::sync::Mutex::new(0_u64);
    c.bench_function("lock-meter/the same of the standard library", |b| {
        b.iter(|| *plain.lock().expect("nobody panics under it") += 1);
    });
}
