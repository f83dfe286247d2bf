//! One request.

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use super::abi;
use super::worker::{Phase, SharedPhase, Worker};

pub struct Stream {
    id: u32,
    worker: Rc<RefCell<Worker>>,
    phase: SharedPhase,
}

impl Stream {
    pub fn new(id: u32, worker: Rc<RefCell<Worker>>) -> Self {
        Self { id, worker, phase: SharedPhase::default() }
    }

    /// Hands the body over that the gate asked for, once all of it is there, or more than it asked for.
    fn collect(&self, size: usize, end_of_stream: bool) {
        let Phase::Collecting(max) = *self.phase.borrow() else { return };
        if size > max {
            self.worker.borrow_mut().take_body(self.id, None);
        } else if end_of_stream {
            let body = abi::buffer(abi::Buffer::HttpRequestBody, size);
            self.worker.borrow_mut().take_body(self.id, Some(body));
        }
    }

    /// Bodies and trailers share the fate of the headers, also where the host delivers them while the headers are
    /// on hold.
    fn follow_headers(&self) -> Action {
        match *self.phase.borrow() {
            Phase::Held | Phase::Collecting(_) | Phase::Answered => Action::Pause,
            Phase::Untouched | Phase::Passed(_) => Action::Continue,
        }
    }
}

impl Context for Stream {}

/// The SDK drops a stream when Envoy is done with it.
impl Drop for Stream {
    fn drop(&mut self) {
        if matches!(*self.phase.borrow(), Phase::Held | Phase::Collecting(_)) {
            self.worker.borrow_mut().forget(self.id);
        }
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        self.worker.borrow_mut().begin(self.id, &self.phase);
        self.collect(0, end_of_stream);
        self.follow_headers()
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        self.collect(size, end_of_stream);
        self.follow_headers()
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        // A body with trailers is no form.
        if matches!(*self.phase.borrow(), Phase::Collecting(_)) {
            self.worker.borrow_mut().take_body(self.id, None);
        }
        self.worker.borrow().scrub_trailers();
        self.follow_headers()
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        if let Phase::Passed(fields) = &*self.phase.borrow() {
            for (name, value) in fields {
                abi::add_header(abi::HeaderMap::Response, name, value.as_bytes());
            }
        }
        Action::Continue
    }
}
