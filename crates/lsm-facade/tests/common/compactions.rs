//! What a run hears of its compactions: which there were, and what the FIFO ones among them dropped.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard};

use lsm_facade::{CompactionControl, Ending, Event, EventListener, Plan, PlanKind, Strategy, Work};

/// How often something was met, by what it is called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts(BTreeMap<String, u64>);

impl Counts {
    fn count(&mut self, name: String) {
        *self.0.entry(name).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (name, times) in &other.0 {
            *self.0.entry(name.clone()).or_default() += times;
        }
    }

    /// Fails, with all that was met, if one of `names` was not.
    #[track_caller]
    pub(crate) fn assert_met(&self, names: &[&str]) {
        let missing: Vec<_> = names.iter().filter(|name| !self.0.contains_key(**name)).collect();
        assert!(missing.is_empty(), "the runs met none of {missing:?}, only: {self}");
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let met: Vec<String> = self.0.iter().map(|(name, times)| format!("{times} {name}")).collect();
        f.write_str(&met.join(", "))
    }
}

/// Listens to a database, from one opening to the next.
#[derive(Debug, Default)]
pub(crate) struct Compactions(Mutex<Heard>);

#[derive(Debug, Default)]
struct Heard {
    /// Of the keyspaces by name.
    strategies: BTreeMap<String, Strategy>,
    met: Counts,
    /// The largest sequence number of what was dropped of a keyspace.
    dropped_through: BTreeMap<String, u64>,
    /// What is cancelled after so many more events.
    cancelling: Option<(u64, CompactionControl)>,
}

impl Compactions {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap()
    }

    /// A keyspace begins to exist, in the place of any that had its name.
    pub(crate) fn created(&self, name: &str, strategy: Strategy) {
        let mut heard = self.heard();
        heard.strategies.insert(name.to_owned(), strategy);
        heard.dropped_through.remove(name);
    }

    /// Everything written to a keyspace up to this sequence number was dropped by FIFO, and nothing behind it; `None` if
    /// nothing was.
    pub(crate) fn dropped_through(&self, name: &str) -> Option<u64> {
        self.heard().dropped_through.get(name).copied()
    }

    /// Runs `compact` with a control that is cancelled once so many events were heard.
    pub(crate) fn cancelling_after<T>(&self, events: u64, compact: impl FnOnce(&CompactionControl) -> T) -> T {
        let control = CompactionControl::new();
        self.heard().cancelling = Some((events, control.clone()));
        let compacted = compact(&control);
        self.heard().cancelling = None;
        compacted
    }

    /// What was met since this was last asked.
    pub(crate) fn take(&self) -> Counts {
        std::mem::take(&mut self.heard().met)
    }
}

impl EventListener for Compactions {
    fn on_event(&self, event: &Event<'_>) {
        let mut heard = self.heard();
        match &mut heard.cancelling {
            Some((0, control)) => {
                control.cancel();
                heard.cancelling = None;
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
        if let Event::CompactionEnded { keyspace, plan, ending, work, .. } = event {
            heard.ended(keyspace, plan, *ending, work);
        }
    }
}

impl Heard {
    fn ended(&mut self, keyspace: &str, plan: &Plan, ending: Ending, work: &Work) {
        if ending != Ending::Installed {
            self.met.count(format!("compactions that ended {ending}"));
            return;
        }
        let strategy = match self.strategies[keyspace] {
            Strategy::Leveled => "leveled",
            Strategy::Tiered => "tiered",
            _ => "FIFO",
        };
        let (kind, reason) = (plan.kind.word(), plan.reason.word());
        self.met.count(format!("{strategy} {kind} for {reason}"));
        self.met.count(strategy.to_owned());
        self.met.count(format!("{kind} for {reason}"));
        if work.parts > 1 {
            self.met.count("merge in several parts".to_owned());
        }
        if plan.kind == PlanKind::Drop {
            // FIFO drops the oldest first, and an epoch is the largest sequence number of what it was given to.
            self.dropped_through.insert(keyspace.to_owned(), plan.table_epoch.0);
        }
    }
}
