//! One configuration in one isolate: the gate, the requests on hold, and the fetches under way.

use std::mem;
use std::time::Duration;

use super::head::{Head, Lengths};
use super::message;
use super::waiting::{Kept, Waiting, WaitingRoom};
use crate::answer::Decision;
use crate::config::Config;
use crate::env::Env;
use crate::gate::{Gate, Outcome, Step};
use crate::provider::{Fetch, FetchFailure, Reply};
use crate::time::Timestamp;
use crate::wire::LEASE_MARGIN;

/// A fetch under way.
struct Flight {
    id: u32,
    fetch: Fetch,
    /// When those who wait stop waiting.
    deadline: Timestamp,
}

pub struct Session {
    gate: Gate,
    /// Whether the runtime decodes bytes as UTF-8.
    as_utf8: bool,
    /// Where JavaScript writes a request's head.
    page: Vec<u8>,
    waiting: WaitingRoom,
    flights: Vec<Flight>,
    last_flight: u32,
    /// How the request before was let through.
    passed: Option<Decision>,
}

impl Session {
    pub fn new(config: Config, as_utf8: bool) -> Self {
        Self {
            gate: Gate::new(config),
            as_utf8,
            page: Vec::new(),
            waiting: WaitingRoom::default(),
            flights: Vec::new(),
            last_flight: 0,
            passed: None,
        }
    }

    pub const fn config(&self) -> &Config {
        self.gate.config()
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Where a head is to be written, of so many bytes at most.
    pub fn page(&mut self, size: usize) -> *const u8 {
        self.page.resize(size, 0);
        self.page.as_ptr()
    }

    /// A new request. Without a message it passes as the one before did.
    pub fn begin(
        &mut self,
        bytes: usize,
        lengths: Lengths,
        ask: &dyn Fn() -> Option<String>,
        env: Env<'_>,
    ) -> Option<String> {
        let header = self.gate.config().token.header.clone();
        let Some(text) = self.page.get(..bytes).and_then(|text| std::str::from_utf8(text).ok()) else {
            // No message is a permission; this is none.
            return Some(String::new());
        };
        let head = Head::new(text, lengths, header.as_deref(), self.as_utf8, ask);
        let step = self.gate.begin(&head.request(), env);
        match step {
            Step::Done(decision) if decision.response.is_none() && self.passed.as_ref() == Some(&decision) => None,
            Step::Done(decision) if decision.response.is_none() => {
                let decided = message::decided(&decision, false, self.as_utf8);
                self.passed = Some(decision);
                Some(decided)
            }
            step => {
                // It may let the request through as well, and JavaScript remembers whatever came last.
                self.passed = None;
                Some(self.drive(step, Kept { bytes: head.size(), is_grpc: head.is_grpc() }, env))
            }
        }
    }

    /// Goes on with a request that waited for a fetch: with its outcome, or in vain.
    pub fn fetched(&mut self, id: u32, env: Env<'_>) -> Option<String> {
        let waiting = self.waiting.remove(id)?;
        let under_way = || self.flights.iter().find(|flight| Some(flight.id) == waiting.flight);
        let late = |flight: &Flight| Outcome::Fetched(Reply::failed(&flight.fetch, env.now, FetchFailure::Timeout));
        let outcome = waiting.outcome.or_else(|| under_way().map(late)).unwrap_or(Outcome::Unsupported);
        let step = self.gate.resume(waiting.pending, outcome, env);
        Some(self.drive(step, waiting.head, env))
    }

    /// Goes on with a request that waited for something else.
    pub fn resume(&mut self, id: u32, outcome: Outcome, env: Env<'_>) -> Option<String> {
        let waiting = self.waiting.remove(id)?;
        let step = self.gate.resume(waiting.pending, outcome, env);
        Some(self.drive(step, waiting.head, env))
    }

    /// What was signed, and behind it the signature. Asked for once.
    pub fn signed(&mut self, id: u32) -> Vec<u8> {
        self.waiting.get_mut(id).map(|waiting| mem::take(&mut waiting.signed)).unwrap_or_default()
    }

    /// The request is gone; what it alone waited for is of no use any more.
    pub fn forget(&mut self, id: u32) {
        let Some(Waiting { flight: Some(flight), .. }) = self.waiting.remove(id) else { return };
        self.flights.retain(|other| other.id != flight || other.fetch.endpoint.is_shared());
    }

    /// What is to be fetched in the background.
    pub fn due(&mut self, now: Timestamp) -> Option<String> {
        let mut fetches = Vec::new();
        for fetch in self.gate.due(now) {
            let (flight, leads) = self.want(&fetch, now);
            fetches.extend(leads.then_some((flight, fetch)));
        }
        (!fetches.is_empty()).then(|| message::background(&fetches))
    }

    /// A fetch has ended. Tells what became of it, unless nobody awaits it any more.
    pub fn land(&mut self, id: u32, now: Timestamp, answer: Result<(u16, Vec<u8>), FetchFailure>) -> Option<String> {
        let position = self.flights.iter().position(|flight| flight.id == id)?;
        let Flight { fetch, .. } = self.flights.swap_remove(position);
        // Clocks of runtimes stand still while nothing is waited for, and whole milliseconds are little.
        let now = now.max(fetch.newer_than.plus(Duration::from_millis(1)));
        let reply = match answer {
            Ok((status, body)) => Reply::from_http(&fetch, now, status, body),
            Err(failure) => Reply::failed(&fetch, now, failure),
        };
        let learned = self.gate.learn(fetch.endpoint, &reply, now);
        self.waiting.landed(id, &|| Outcome::Fetched(reply.clone()));
        Some(message::landed(&fetch, &learned))
    }

    /// Takes a request as far as it goes: to a decision, or on hold.
    fn drive(&mut self, mut step: Step, head: Kept, env: Env<'_>) -> String {
        loop {
            let (pending, outcome) = match step {
                Step::Done(decision) => return message::decided(&decision, head.is_grpc, self.as_utf8),
                // It goes on as if the wait had been in vain, and nobody learns anything from that.
                Step::Verify(_, pending) | Step::Body(_, pending) | Step::Fetch(_, pending)
                    if !self.has_place_for(head, env.now) =>
                {
                    (pending, Outcome::Unsupported)
                }
                Step::Verify(check, pending) => match check.spki() {
                    None => (pending, Outcome::Unsupported),
                    Some(spki) => {
                        let signed = [check.message(), check.signature()].concat();
                        let id = self.hold(Waiting { signed, ..Waiting::new(pending, head, env.now) });
                        return message::verify(id, check.algorithm(), spki, check.message().len());
                    }
                },
                Step::Body(body, pending) => {
                    let id = self.hold(Waiting::new(pending, head, env.now.plus(body.timeout)));
                    return message::body(id, body);
                }
                Step::Fetch(fetch, pending) => {
                    let wait = fetch.timeout.saturating_add(LEASE_MARGIN);
                    let (flight, leads) = self.want(&fetch, env.now);
                    let waiting = Waiting::new(pending, head, env.now.plus(wait));
                    let id = self.hold(Waiting { flight: Some(flight), ..waiting });
                    return message::awaited(flight, leads.then_some(&fetch), id, wait);
                }
            };
            step = self.gate.resume(pending, outcome, env);
        }
    }

    fn has_place_for(&mut self, head: Kept, now: Timestamp) -> bool {
        self.waiting.sweep(now);
        self.waiting.has_place_for(head)
    }

    fn hold(&mut self, waiting: Waiting) -> u32 {
        self.waiting.insert(waiting)
    }

    /// Joins the flight for a fetch, or begins one, which the caller then leads.
    fn want(&mut self, fetch: &Fetch, now: Timestamp) -> (u32, bool) {
        // Whoever has led these has not come back.
        self.flights.retain(|flight| now <= flight.deadline);
        if let Some(flight) = self.flights.iter().find(|flight| flight.fetch.serves(fetch)) {
            return (flight.id, false);
        }
        self.last_flight = self.last_flight.wrapping_add(1);
        let deadline = now.plus(fetch.timeout).plus(LEASE_MARGIN);
        self.flights.push(Flight { id: self.last_flight, fetch: fetch.clone(), deadline });
        (self.last_flight, true)
    }
}
