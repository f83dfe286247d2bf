//! Requests on hold, each with what it waits for.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::gate::{Outcome, Pending};
use crate::time::Timestamp;

/// How many requests wait at a time. One more is answered as if the fetch had failed.
pub const MAX_WAITING: usize = 1024;

/// How many bytes the heads of these may have together. One more is answered likewise.
pub const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;

/// How much later than it is due a request may come back. Then its place is free: runtimes may end a request without a word.
pub const MAX_OVERDUE: Duration = Duration::from_secs(10);

/// What is kept of a request's head.
#[derive(Clone, Copy)]
pub struct Kept {
    /// About how many bytes it has.
    pub bytes: usize,
    /// Whether its client is one of gRPC.
    pub is_grpc: bool,
}

/// A request on hold.
pub struct Waiting {
    pub pending: Pending,
    /// What was waited for, once it is there.
    pub outcome: Option<Outcome>,
    /// The fetch that it waits for.
    pub flight: Option<u32>,
    /// What was signed, and behind it the signature.
    pub signed: Vec<u8>,
    pub head: Kept,
    /// When it should come back.
    pub due: Timestamp,
}

impl Waiting {
    pub const fn new(pending: Pending, head: Kept, due: Timestamp) -> Self {
        Self { pending, outcome: None, flight: None, signed: Vec::new(), head, due }
    }
}

#[derive(Default)]
pub struct WaitingRoom {
    requests: BTreeMap<u32, Waiting>,
    head_bytes: usize,
    last: u32,
}

impl WaitingRoom {
    pub fn has_place_for(&self, head: Kept) -> bool {
        self.requests.len() < MAX_WAITING && self.head_bytes.saturating_add(head.bytes) <= MAX_WAITING_BYTES
    }

    /// Takes a request in, and gives its number.
    pub fn insert(&mut self, waiting: Waiting) -> u32 {
        // Numbers come round again after four thousand million requests that waited.
        self.last = self.last.wrapping_add(1);
        self.remove(self.last);
        self.head_bytes += waiting.head.bytes;
        self.requests.insert(self.last, waiting);
        self.last
    }

    pub fn remove(&mut self, id: u32) -> Option<Waiting> {
        let waiting = self.requests.remove(&id)?;
        self.head_bytes = self.head_bytes.saturating_sub(waiting.head.bytes);
        Some(waiting)
    }

    pub fn get_mut(&mut self, id: u32) -> Option<&mut Waiting> {
        self.requests.get_mut(&id)
    }

    /// Lets those go that do not come back.
    pub fn sweep(&mut self, now: Timestamp) {
        let is_gone = |waiting: &Waiting| waiting.due.plus(MAX_OVERDUE) < now;
        let gone: Vec<u32> = self.requests.iter().filter(|(_, waiting)| is_gone(waiting)).map(|(id, _)| *id).collect();
        for id in gone {
            self.remove(id);
        }
    }

    /// Gives everybody who waits for a fetch its outcome.
    pub fn landed(&mut self, flight: u32, outcome: &dyn Fn() -> Outcome) {
        for waiting in self.requests.values_mut().filter(|waiting| waiting.flight == Some(flight)) {
            waiting.outcome = Some(outcome());
        }
    }

    pub fn len(&self) -> usize {
        self.requests.len()
    }
}
