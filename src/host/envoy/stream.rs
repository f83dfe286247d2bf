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

    /// Bodies and trailers share the fate of the headers, also where the host delivers them while the headers are
    /// on hold.
    fn follow_headers(&self) -> Action {
        match *self.phase.borrow() {
            Phase::Held | Phase::Answered => Action::Pause,
            Phase::Untouched | Phase::Passed(_) => Action::Continue,
        }
    }
}

impl Context for Stream {
    fn on_done(&mut self) -> bool {
        if matches!(*self.phase.borrow(), Phase::Held) {
            self.worker.borrow_mut().forget(self.id);
        }
        true
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        self.worker.borrow_mut().begin(self.id, &self.phase);
        self.follow_headers()
    }

    fn on_http_request_body(&mut self, _: usize, _: bool) -> Action {
        self.follow_headers()
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.follow_headers()
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        if let Phase::Passed(fields) = &*self.phase.borrow() {
            for (name, value) in fields {
                abi::add_header(abi::HeaderMap::Response, name, value);
            }
        }
        Action::Continue
    }
}
