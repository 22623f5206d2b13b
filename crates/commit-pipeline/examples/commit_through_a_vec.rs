//! Writers commit through a pipeline whose log is a vector in memory; then what a commit costs is measured.
//!
//! `cargo run --release -p commit-pipeline --example commit_through_a_vec -- THREADS COMMITS`

use std::convert::Infallible;
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use commit_pipeline::{Durability, Journal, Pipeline, PipelineOptions, Request, ReserveError};
use internal_key::SeqNo;

/// A log of words, written over from the start when it is full.
struct VecLog {
    words: Vec<AtomicU64>,
    durable: AtomicU64,
}

/// The words of one record, counted from the log's beginning.
struct Words {
    start: u64,
    end: u64,
}

impl Journal for VecLog {
    type Tail = u64;
    type Reservation = Words;
    type Payload<'a> = &'a [u64];
    type Position = u64;
    type Error = Infallible;

    fn payload_bytes(payload: &&[u64]) -> u64 {
        payload.len() as u64
    }

    fn reserve(&self, tail: &mut u64, payload_words: u64, _first: SeqNo) -> Result<Words, ReserveError> {
        Ok(Words { start: *tail, end: *tail + payload_words })
    }

    fn accept(&self, tail: &mut u64, range: &Words) {
        *tail = range.end;
    }

    fn start(range: &Words) -> u64 {
        range.start
    }

    fn end(range: &Words) -> u64 {
        range.end
    }

    fn prepare_segment(&self) -> Result<(), Infallible> {
        Ok(())
    }

    fn append(&self, range: &Words, payload: &&[u64]) -> Result<(), Infallible> {
        for (position, word) in (range.start..range.end).zip(payload.iter()) {
            // Relaxed: the pipeline publishes what is copied.
            self.words[position as usize % self.words.len()].store(*word, Ordering::Relaxed);
        }
        Ok(())
    }

    fn sync_through(&self, position: u64) -> Result<(), Infallible> {
        // Release pairs with the Acquire in `durable`.
        self.durable.fetch_max(position, Ordering::Release);
        Ok(())
    }

    fn durable(&self) -> u64 {
        // Acquire pairs with the Release in `sync_through`.
        self.durable.load(Ordering::Acquire)
    }

    fn is_certain(error: &Infallible) -> bool {
        match *error {}
    }

    fn distance(base: u64, position: u64) -> u64 {
        position - base
    }

    fn at_distance(base: u64, distance: u64) -> u64 {
        base + distance
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let threads = arguments.next().transpose()?.unwrap_or(2);
    let commits = arguments.next().transpose()?.unwrap_or(100_000);

    let log = VecLog { words: (0..1 << 16).map(|_| AtomicU64::new(0)).collect(), durable: AtomicU64::new(0) };
    let pipeline = Pipeline::new(log, 0, SeqNo::ZERO, PipelineOptions::default());
    let applied = AtomicU64::new(0);
    let commit = |durability| {
        pipeline.commit(
            &Request::new([7; 18].as_slice(), 1, durability),
            |first, _position| Ok::<_, Infallible>(first),
            // Relaxed: the pipeline publishes what is applied.
            |first| applied.store(first.get(), Ordering::Relaxed),
        )
    };

    let last = commit(Durability::Synced)?;
    println!(
        "the first batch got seqno {last}; visible {}, durable {}",
        pipeline.visible().load(),
        pipeline.journal().durable()
    );

    let began = Instant::now();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..commits {
                        commit(Durability::Buffered).expect("nothing fails in memory");
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().expect("no writer panics"));
    });
    let took = began.elapsed();
    println!(
        "{threads} threads, {commits} commits each: {} ns a commit",
        took.as_nanos() / u128::from(threads * commits)
    );

    pipeline.persist().map_err(|cause| cause.to_string())?;
    let tail = pipeline.close()?;
    println!("closed at word {tail} of the log, last seqno {}, {:?}", pipeline.visible().load(), pipeline.counts());
    Ok(())
}
