//! One configuration on one worker: reads the configuration, makes the calls.

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{ContextType, LogLevel};

use super::abi;
use super::document::from_struct;
use super::stream::Stream;
use super::worker::Worker;
use crate::config::{Clusters, Config, ConfigErrors, MAX_CONFIG_BYTES};
use crate::encoding::MAX_JSON_DEPTH;
use crate::gate::Gate;
use crate::wire::RecordKey;

pub struct Root {
    id: u32,
    worker: Option<Rc<RefCell<Worker>>>,
}

impl Root {
    pub const fn new(id: u32) -> Self {
        Self { id, worker: None }
    }

    fn configure(&self, document: &[u8]) -> Result<Worker, ConfigErrors> {
        #[allow(clippy::disallowed_methods, reason = "the host is where environment variables are looked up")]
        let env = |name: &str| std::env::var(name).ok();
        let config = match from_struct(document).filter(|_| document.len() <= MAX_CONFIG_BYTES) {
            Some(Some(value)) => Config::from_value(&value, &env)?,
            Some(None) => return Err(ConfigErrors::single("", format!("nests deeper than {MAX_JSON_DEPTH}"))),
            None => Config::from_json(document, &env)?,
        };
        let no_cluster = config.provider.cluster == Clusters::None;
        let exchanges = config.callback.is_some();
        let secret = config.client.secret.as_ref().map_or("", |secret| secret.reveal());
        let record_key =
            RecordKey::derive(document, secret).ok_or_else(|| ConfigErrors::single("", "cannot be hashed"))?;
        let mut worker = Worker::new(self.id, Gate::new(config), record_key);
        if no_cluster && (exchanges || worker.fetches()) {
            let problem = "missing, must be the name of the Envoy cluster that reaches the issuer, or an object from host to cluster";
            return Err(ConfigErrors::single("provider.cluster", problem));
        }
        Ok(worker)
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, fields: usize, body_size: usize, _: usize) {
        if let Some(worker) = &self.worker {
            worker.borrow_mut().on_call_response(token, fields, body_size);
        }
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        let document = abi::buffer(abi::Buffer::PluginConfiguration, size);
        match self.configure(&document) {
            Ok(worker) => {
                self.worker = Some(Rc::new(RefCell::new(worker)));
                // Calls cannot be made yet: the first tick makes them.
                abi::set_tick_period(1);
                true
            }
            Err(errors) => {
                abi::log(LogLevel::Error, &format!("stepgate: {errors}"));
                false
            }
        }
    }

    fn on_tick(&mut self) {
        if let Some(worker) = &self.worker {
            worker.borrow_mut().pump();
        }
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        let worker = self.worker.clone()?;
        Some(Box::new(Stream::new(context_id, worker)))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}
