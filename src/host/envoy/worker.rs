//! What a worker's root context and its streams share: the gate, the requests on hold, and the fetches under way.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use proxy_wasm::hostcalls::dispatch_http_call;
use proxy_wasm::types::LogLevel;

use super::abi::{self, HeaderFields};
use super::metrics::Metrics;
use super::verify::verify_signature;
use crate::answer::{Decision, DecisionKind};
use crate::config::Clusters;
use crate::env::Env;
use crate::forward::copies;
use crate::gate::{Gate, Outcome, Pending, Step};
use crate::http::Request;
use crate::provider::{Fetch, FetchFailure, Reply};
use crate::reason::Reason;
use crate::time::Timestamp;
use crate::wire::{LEASE_MARGIN, Plan, Record, RecordKey};

/// How many requests a worker holds at a time. One more is answered as if the fetch had failed.
pub const MAX_WAITING: usize = 1024;

/// How many bytes the heads of these may have together: of each, parts are kept, some of them more than once. One more is
/// answered likewise.
pub const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;

/// How many bodies a worker awaits at a time.
pub const MAX_COLLECTING: usize = 256;

/// How many requests on hold go on in one callback. Envoy carries out what a callback asks for when the callback ends, each
/// local reply within the one before: some hundreds at a time would overflow the VM's stack.
pub const MAX_RELEASED: usize = 32;

/// The longest request ID that is logged.
pub const MAX_REQUEST_ID_BYTES: usize = 128;

/// How often a worker looks for what is due, in milliseconds …
const IDLE_TICK: u32 = 1000;

/// … how often while there are counts to tell …
const COUNTING_TICK: u32 = 100;

/// … and how often while a fetch waits to be made or for another worker, or requests for their turn.
const BUSY_TICK: u32 = 5;

/// What a stream does in the phases after its request headers.
#[derive(Default)]
pub enum Phase {
    /// Let everything pass.
    #[default]
    Untouched,
    /// On hold: nothing may reach the app.
    Held,
    /// On hold until its body is there, of so many bytes at most.
    Collecting(usize),
    /// Passed: these fields go into the app's response.
    Passed(Vec<(&'static str, String)>),
    /// The gate answered.
    Answered,
}

pub type SharedPhase = Rc<RefCell<Phase>>;

struct Waiting {
    pending: Pending,
    phase: SharedPhase,
    head_bytes: usize,
}

/// The requests on hold, by stream.
#[derive(Default)]
struct WaitingRoom {
    requests: BTreeMap<u32, Waiting>,
    head_bytes: usize,
}

impl WaitingRoom {
    fn has_place_for(&self, head_bytes: usize) -> bool {
        self.requests.len() < MAX_WAITING && self.head_bytes.saturating_add(head_bytes) <= MAX_WAITING_BYTES
    }

    fn insert(&mut self, stream_id: u32, waiting: Waiting) {
        self.remove(stream_id);
        self.head_bytes += waiting.head_bytes;
        self.requests.insert(stream_id, waiting);
    }

    fn remove(&mut self, stream_id: u32) -> Option<Waiting> {
        let waiting = self.requests.remove(&stream_id)?;
        self.head_bytes = self.head_bytes.saturating_sub(waiting.head_bytes);
        Some(waiting)
    }
}

/// A fetch that somebody here waits for, or the background.
struct Flight {
    fetch: Fetch,
    /// The call's token, when this worker makes it.
    call: Option<u32>,
    /// When those who wait stop waiting.
    deadline: Timestamp,
    waiters: Vec<u32>,
}

pub struct Worker {
    root_id: u32,
    gate: Gate,
    record_key: RecordKey,
    metrics: Metrics,
    waiting: WaitingRoom,
    flights: Vec<Flight>,
    /// Requests whose outcome is there, in the order of their turn.
    released: VecDeque<(u32, Outcome)>,
    /// Requests whose body is awaited, and until when.
    collecting: VecDeque<(u32, Timestamp)>,
    warned_of_bodies: bool,
    /// Whether each decision is logged. Envoy's level may change, so every tick asks for it; no request has to.
    logs_decisions: bool,
    tick: u32,
}

impl Worker {
    pub fn new(root_id: u32, gate: Gate, record_key: RecordKey) -> Self {
        Self {
            root_id,
            gate,
            record_key,
            metrics: Metrics::default(),
            waiting: WaitingRoom::default(),
            flights: Vec::new(),
            released: VecDeque::new(),
            collecting: VecDeque::new(),
            warned_of_bodies: false,
            logs_decisions: abi::logs_debug(),
            tick: 0,
        }
    }

    /// A new request: decided at once, or put on hold.
    pub fn begin(&mut self, stream_id: u32, phase: &SharedPhase) {
        let fields = HeaderFields::read(abi::HeaderMap::Request);
        let [method, authority, path] = [":method", ":authority", ":path"].map(|name| fields.pseudo_header(name));
        let request = Request { method: &method, authority: &authority, path: &path, fields: &fields };
        let head_bytes = fields.size().max(method.len() + authority.len() + path.len());
        let now = abi::now();
        let step = self.gate.begin(&request, Env { now, entropy: &abi::entropy });
        if let Some(decision) = self.drive(step, stream_id, phase, head_bytes, now) {
            self.apply(decision, phase);
        }
    }

    /// The stream is gone; what it waited for goes on without it.
    pub fn forget(&mut self, stream_id: u32) {
        self.waiting.remove(stream_id);
        self.collecting.retain(|(waiter, _)| *waiter != stream_id);
        self.released.retain(|(waiter, _)| *waiter != stream_id);
        for flight in &mut self.flights {
            flight.waiters.retain(|waiter| *waiter != stream_id);
        }
    }

    /// Removes identity fields from the request's trailers. A map that cannot be read loses them by name.
    pub fn scrub_trailers(&self) {
        let forward = &self.gate.config().forward;
        if forward.headers.is_empty() {
            return;
        }
        let copies = copies(&HeaderFields::read(abi::HeaderMap::RequestTrailers), forward);
        let by_name = || forward.headers.iter().map(|(name, _)| name.as_bytes().to_vec()).collect();
        for name in copies.unwrap_or_else(by_name) {
            abi::remove_header(abi::HeaderMap::RequestTrailers, &name);
        }
    }

    /// Takes a request as far as it goes: to a decision, or on hold.
    fn drive(
        &mut self,
        mut step: Step,
        stream_id: u32,
        phase: &SharedPhase,
        head_bytes: usize,
        now: Timestamp,
    ) -> Option<Decision> {
        let env = Env { now, entropy: &abi::entropy };
        loop {
            let (pending, outcome) = match step {
                Step::Done(decision) => return Some(decision),
                Step::Verify(check, pending) => {
                    let outcome = verify_signature(&check);
                    let by = if matches!(outcome, Outcome::Verified(_)) { "host" } else { "software" };
                    self.metrics.count_signature(by, check.algorithm());
                    (pending, outcome)
                }
                Step::Body(_, pending) if !self.waiting.has_place_for(head_bytes) => (pending, Outcome::Unsupported),
                Step::Body(body, pending) => {
                    // Forms of honest people come at once: whoever has kept the gate waiting for longest goes.
                    if self.collecting.len() >= MAX_COLLECTING
                        && let Some((oldest, _)) = self.collecting.pop_front()
                    {
                        self.released.push_back((oldest, Outcome::Unsupported));
                    }
                    phase.replace(Phase::Collecting(body.max_bytes));
                    self.waiting.insert(stream_id, Waiting { pending, phase: phase.clone(), head_bytes });
                    self.collecting.push_back((stream_id, now.plus(body.timeout)));
                    self.set_tick();
                    return None;
                }
                Step::Fetch(fetch, pending) => match self.known_reply(&fetch, now) {
                    Some(reply) => (pending, Outcome::Fetched(reply)),
                    // It goes on as if the wait had been in vain, and nobody learns anything from that.
                    None if !self.waiting.has_place_for(head_bytes) => (pending, Outcome::Unsupported),
                    None => {
                        phase.replace(Phase::Held);
                        self.waiting.insert(stream_id, Waiting { pending, phase: phase.clone(), head_bytes });
                        self.want(fetch, Some(stream_id), now);
                        self.set_tick();
                        return None;
                    }
                },
            };
            step = self.gate.resume(pending, outcome, env);
        }
    }

    /// A body that was asked for, or none that could be had.
    pub fn take_body(&mut self, stream_id: u32, body: Option<Vec<u8>>) {
        self.collecting.retain(|(waiter, _)| *waiter != stream_id);
        let Some(Waiting { pending, phase, head_bytes }) = self.waiting.remove(stream_id) else { return };
        let now = abi::now();
        let outcome = body.map_or(Outcome::Unsupported, Outcome::Body);
        let step = self.gate.resume(pending, outcome, Env { now, entropy: &abi::entropy });
        if let Some(decision) = self.drive(step, stream_id, &phase, head_bytes, now) {
            self.apply(decision, &phase);
        }
    }

    /// Requests whose body does not come: without `allow_on_headers_stop_iteration: true` Envoy delivers none while the headers
    /// are on hold.
    fn give_up_on_bodies(&mut self, now: Timestamp) {
        while let Some((stream_id, _)) = self.collecting.pop_front_if(|(_, deadline)| *deadline < now) {
            self.released.push_back((stream_id, Outcome::Unsupported));
            if !self.warned_of_bodies {
                self.warned_of_bodies = true;
                let message = "stepgate: the body of a form_post response did not come in time. If none ever does: it needs \
                    `allow_on_headers_stop_iteration: true`, which Istio does not offer, or another response_mode";
                abi::log(LogLevel::Warn, message);
            }
        }
    }

    /// What can be said about a fetch without making it.
    fn known_reply(&self, fetch: &Fetch, now: Timestamp) -> Option<Reply> {
        if !fetch.endpoint.is_shared() {
            return None;
        }
        match self.record(fetch).0.plan(fetch, now) {
            Plan::Answer(reply) => Some(reply),
            Plan::Wait | Plan::Lead(_) => None,
        }
    }

    /// Joins the flight for a fetch, or starts one. Calls are only made from the root context's own callbacks
    /// ([`Self::pump`]): the SDK would lose the answer to a call whose stream is gone.
    fn want(&mut self, fetch: Fetch, waiter: Option<u32>, now: Timestamp) {
        match self.flights.iter_mut().find(|flight| flight.fetch.serves(&fetch)) {
            Some(flight) => {
                flight.waiters.extend(waiter);
                if flight.call.is_none() {
                    flight.fetch.newer_than = flight.fetch.newer_than.max(fetch.newer_than);
                    flight.fetch.for_unknown_kid |= fetch.for_unknown_kid;
                }
            }
            None => {
                let deadline = now.plus(fetch.timeout).plus(LEASE_MARGIN);
                self.flights.push(Flight { fetch, call: None, deadline, waiters: waiter.into_iter().collect() });
            }
        }
    }

    /// Starts what is due, and moves every flight on. Only from the root context's callbacks.
    pub fn pump(&mut self) {
        let now = abi::now();
        // What nobody waits for any more is not fetched, unless it is of use to all.
        let is_wanted =
            |flight: &Flight| flight.fetch.endpoint.is_shared() || flight.call.is_some() || !flight.waiters.is_empty();
        self.flights.retain(is_wanted);
        loop {
            // A reply may call for the next fetch (keys after metadata), which starts in the same round.
            for fetch in self.gate.due(now) {
                self.want(fetch, None, now);
            }
            let Some((index, reply, led)) = self.next_reply(now) else { break };
            let flight = self.flights.swap_remove(index);
            self.land(flight, &reply, led, now);
        }
        self.give_up_on_bodies(now);
        self.release(now);
        self.set_tick();
        self.metrics.tell();
        self.logs_decisions = abi::logs_debug();
    }

    /// Moves flights on until one has a reply. The flag tells whether this worker made the attempt.
    fn next_reply(&mut self, now: Timestamp) -> Option<(usize, Reply, bool)> {
        for index in 0..self.flights.len() {
            let flight = self.flights.get(index)?;
            if now > flight.deadline {
                let reply = Reply::failed(&flight.fetch, now, FetchFailure::Timeout);
                return Some((index, reply, flight.call.is_some()));
            }
            if flight.call.is_some() {
                continue;
            }
            let fetch = flight.fetch.clone();
            if !fetch.endpoint.is_shared() {
                match self.call(&fetch) {
                    Some(call) => self.flights.get_mut(index)?.call = Some(call),
                    None => return Some((index, Reply::failed(&fetch, now, FetchFailure::Unreachable), true)),
                }
                continue;
            }
            let (record, version) = self.record(&fetch);
            match record.plan(&fetch, now) {
                Plan::Answer(reply) => return Some((index, reply, false)),
                Plan::Wait => {}
                Plan::Lead(record) => {
                    if self.store(&fetch, &record, version) {
                        match self.call(&fetch) {
                            Some(call) => self.flights.get_mut(index)?.call = Some(call),
                            None => {
                                let reply = Reply::failed(&fetch, now, FetchFailure::Unreachable);
                                return Some((index, reply, true));
                            }
                        }
                    }
                }
            }
        }
        None
    }

    /// The answer to a call.
    pub fn on_call_response(&mut self, call: u32, fields: usize, body_size: usize) {
        let now = abi::now();
        let Some(index) = self.flights.iter().position(|flight| flight.call == Some(call)) else { return };
        let flight = self.flights.swap_remove(index);
        let status = std::str::from_utf8(&abi::first_value(abi::HeaderMap::HttpCallResponse, ":status"))
            .ok()
            .and_then(|status| status.parse().ok());
        let reply = match status.filter(|_| fields > 0) {
            None => Reply::failed(&flight.fetch, now, FetchFailure::Reset),
            Some(_) if body_size > flight.fetch.max_bytes => Reply::failed(&flight.fetch, now, FetchFailure::TooLarge),
            Some(status) => {
                let body = abi::buffer(abi::Buffer::HttpCallResponseBody, body_size);
                Reply::from_http(&flight.fetch, now, status, body)
            }
        };
        self.land(flight, &reply, true, now);
        self.pump();
    }

    /// Takes a reply in, tells the other workers, and gives those their turn who waited.
    fn land(&mut self, flight: Flight, reply: &Reply, led: bool, now: Timestamp) {
        let Flight { fetch, waiters, .. } = flight;
        let learned = self.gate.learn(fetch.endpoint, reply, now);
        if led {
            if fetch.endpoint.is_shared() {
                let (record, version) = self.record(&fetch);
                self.store(&fetch, &record.after(reply, learned.is_ok()), version);
            }
            let result = learned.as_ref().err().map_or_else(|| "ok".to_owned(), |fault| fault.name());
            self.metrics.count_fetch(fetch.endpoint, &result, now);
            let (endpoint, url) = (fetch.endpoint.name(), &fetch.url);
            match &learned {
                Ok(()) if fetch.endpoint.is_shared() => {
                    abi::log(LogLevel::Info, &format!("stepgate: fetched the {endpoint} from {url}"));
                }
                Ok(()) => {}
                Err(fault) if !fetch.endpoint.is_shared() => {
                    abi::log(LogLevel::Warn, &format!("stepgate: {endpoint} request to {url}: {fault}"));
                }
                Err(fault) => {
                    let message = format!(
                        "stepgate: could not get the {endpoint} from {url}: {fault}; what was known before stays in use"
                    );
                    abi::log(LogLevel::Warn, &message);
                }
            }
        }
        self.released.extend(waiters.into_iter().map(|stream_id| (stream_id, Outcome::Fetched(reply.clone()))));
    }

    /// Lets some of the requests go on whose outcome is there.
    fn release(&mut self, now: Timestamp) {
        let env = Env { now, entropy: &abi::entropy };
        let turn = self.released.len().min(MAX_RELEASED);
        for (stream_id, outcome) in self.released.drain(..turn).collect::<Vec<_>>() {
            let Some(Waiting { pending, phase, head_bytes }) = self.waiting.remove(stream_id) else { continue };
            if !abi::set_effective_context(stream_id) {
                continue;
            }
            let step = self.gate.resume(pending, outcome, env);
            if let Some(decision) = self.drive(step, stream_id, &phase, head_bytes, now) {
                let passes = decision.response.is_none();
                self.apply(decision, &phase);
                if passes {
                    abi::continue_request();
                }
            }
        }
        abi::set_effective_context(self.root_id);
    }

    /// Carries a decision out on the effective context's stream, short of letting a held request go on.
    fn apply(&mut self, decision: Decision, phase: &SharedPhase) {
        self.metrics.count_decision(&decision);
        if self.metrics.has_untold() && self.tick > COUNTING_TICK {
            self.set_tick();
        }
        let (kind, code) = (decision.kind, decision.reason.code());
        if !matches!(decision.reason, Reason::NotProtected) {
            abi::set_filter_state("stepgate", code);
        }
        if kind != DecisionKind::Forward {
            let rules = decision.rules.join(", ");
            abi::set_filter_state("stepgate_decision", kind.name());
            if !rules.is_empty() {
                abi::set_filter_state("stepgate_rule", &rules);
            }
            if kind == DecisionKind::Report {
                abi::log(LogLevel::Info, &format!("stepgate: report only, rule {rules}: {code}: {}", decision.reason));
            }
        }
        if self.logs_decisions {
            let rules =
                if decision.rules.is_empty() { String::new() } else { format!(", rule {}", decision.rules.join(", ")) };
            let line =
                format!("stepgate: request {}: {}{rules}: {code}: {}", request_id(), kind.name(), decision.reason);
            abi::log(LogLevel::Debug, &line);
        }
        match &decision.response {
            Some(response) => {
                phase.replace(Phase::Answered);
                abi::send_local_response(response, &format!("stepgate_{}", decision.reason.code()));
            }
            None => {
                abi::edit_request(&decision.request);
                phase.replace(Phase::Passed(decision.response_headers));
            }
        }
    }

    fn record(&self, fetch: &Fetch) -> (Record, Option<u32>) {
        let name = self.record_key.record_name(fetch);
        let stored = abi::shared_data(&name);
        let version = stored.as_ref().map(|(_, version)| *version);
        let record = stored.and_then(|(bytes, _)| Record::open(&self.record_key, &name, &bytes));
        (record.unwrap_or_default(), version)
    }

    fn store(&self, fetch: &Fetch, record: &Record, version: Option<u32>) -> bool {
        let name = self.record_key.record_name(fetch);
        abi::replace_shared_data(&name, &record.seal(&self.record_key, &name), version)
    }

    fn call(&self, fetch: &Fetch) -> Option<u32> {
        let uri: http::Uri = fetch.url.parse().ok()?;
        let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
        let host = authority.host();
        let cluster = match &self.gate.config().provider.cluster {
            Clusters::Every(cluster) => Some(cluster),
            Clusters::ByHost(clusters) => clusters.get(&host.to_ascii_lowercase()),
            Clusters::None => None,
        };
        let Some(cluster) = cluster else {
            abi::log(LogLevel::Error, &format!("stepgate: `provider.cluster` names no cluster for `{host}`"));
            return None;
        };
        let method = if fetch.form.is_some() { "POST" } else { "GET" };
        let mut headers = vec![
            (":method", method),
            (":scheme", scheme),
            (":authority", authority.as_str()),
            (":path", uri.path_and_query().map_or("/", |path| path.as_str())),
            ("accept", "application/json"),
            ("user-agent", concat!("stepgate/", env!("CARGO_PKG_VERSION"))),
        ];
        let mut body = None;
        if let Some(form) = &fetch.form {
            headers.push(("content-type", "application/x-www-form-urlencoded"));
            headers.extend(form.authorization.as_ref().map(|value| ("authorization", value.reveal())));
            body = Some(form.body.reveal().as_bytes());
        }
        let call = dispatch_http_call(cluster, headers, body, Vec::new(), fetch.timeout);
        if call.is_err() {
            let message = format!(
                "stepgate: Envoy makes no call to the cluster `{cluster}`: unknown, its name not resolved, or no healthy host"
            );
            abi::log(LogLevel::Error, &message);
        }
        call.ok()
    }

    fn set_tick(&mut self) {
        let busy = !self.released.is_empty() || self.flights.iter().any(|flight| flight.call.is_none());
        let tick = match self.metrics.has_untold() {
            _ if busy => BUSY_TICK,
            true => COUNTING_TICK,
            false => IDLE_TICK,
        };
        if self.tick != tick {
            self.tick = tick;
            abi::set_tick_period(tick);
        }
    }

    /// Whether anything is ever fetched. Asked before the first fetch.
    pub fn fetches(&mut self) -> bool {
        !self.gate.due(abi::now()).is_empty()
    }
}

/// The ID by which Envoy's other logs know the request; `-` where it has none, or one that nobody would read.
fn request_id() -> String {
    let id = String::from_utf8(abi::first_value(abi::HeaderMap::Request, "x-request-id")).unwrap_or_default();
    let is_readable = (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    if is_readable { id } else { "-".to_owned() }
}
