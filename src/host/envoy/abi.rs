//! Host calls without panics. The SDK's own wrappers panic on any status that they do not expect, and on header
//! values that are not UTF-8; a panic traps the worker's VM.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ptr::{null, null_mut};

use proxy_wasm::types::LogLevel;

use crate::http::{Fields, RequestEdits, Response};
use crate::time::Timestamp;

/// `proxy_status_t`.
pub type Status = u32;
const OK: Status = 0;

/// `proxy_buffer_type_t`.
#[derive(Clone, Copy)]
pub enum Buffer {
    HttpRequestBody = 0,
    HttpCallResponseBody = 4,
    PluginConfiguration = 7,
}

/// `proxy_map_type_t`.
#[derive(Clone, Copy)]
pub enum HeaderMap {
    Request = 0,
    RequestTrailers = 1,
    Response = 2,
    HttpCallResponse = 6,
}

const HTTP_REQUEST_STREAM: u32 = 0;
const COUNTER: u32 = 0;
const GAUGE: u32 = 1;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, message: *const u8, size: usize) -> Status;
    fn proxy_get_log_level(level: *mut u32) -> Status;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> Status;
    fn proxy_set_tick_period_milliseconds(period: u32) -> Status;
    fn proxy_get_buffer_bytes(buffer: u32, start: usize, max: usize, data: *mut *mut u8, size: *mut usize) -> Status;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> Status;
    fn proxy_get_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> Status;
    fn proxy_add_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> Status;
    fn proxy_remove_header_map_value(map: u32, key: *const u8, key_size: usize) -> Status;
    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize) -> Status;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
        cas: *mut u32,
    ) -> Status;
    fn proxy_set_shared_data(key: *const u8, key_size: usize, value: *const u8, value_size: usize, cas: u32) -> Status;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> Status;
    fn proxy_continue_stream(stream: u32) -> Status;
    fn proxy_set_effective_context(context_id: u32) -> Status;
    fn proxy_call_foreign_function(
        name: *const u8,
        name_size: usize,
        arguments: *const u8,
        arguments_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> Status;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> Status;
    fn proxy_increment_metric(id: u32, offset: i64) -> Status;
    fn proxy_record_metric(id: u32, value: u64) -> Status;
}

/// Makes a host call that returns bytes which the host allocated in this VM by `proxy_on_memory_allocate`.
fn returned_bytes(call: impl FnOnce(*mut *mut u8, *mut usize) -> Status) -> Result<Vec<u8>, Status> {
    let mut data: *mut u8 = null_mut();
    let mut size = 0;
    match call(&raw mut data, &raw mut size) {
        OK if data.is_null() => Ok(Vec::new()),
        // SAFETY: the allocation came from this VM's global allocator, as a boxed slice of exactly `size` bytes
        // (the SDK's allocator.rs), and the host gave it away.
        OK => Ok(unsafe { Vec::from_raw_parts(data, size, size) }),
        status => Err(status),
    }
}

/// Writes to Envoy's log.
pub fn log(level: LogLevel, message: &str) {
    // SAFETY: pointer and length are of one live slice; so in every call below.
    unsafe { proxy_log(level as u32, message.as_ptr(), message.len()) };
}

/// Whether Envoy's log takes lines of the level debug.
pub fn logs_debug() -> bool {
    let mut level = LogLevel::Info as u32;
    unsafe { proxy_get_log_level(&raw mut level) };
    level <= LogLevel::Debug as u32
}

/// The time now.
pub fn now() -> Timestamp {
    let mut nanoseconds = 0;
    // SAFETY: the pointer is to a live local; so in every call below.
    unsafe { proxy_get_current_time_nanoseconds(&raw mut nanoseconds) };
    Timestamp::from_millis(nanoseconds / 1_000_000)
}

/// How many values are drawn from the random source at a time: a call for each would cost more than what is made of it.
const DRAWN_AT_ONCE: usize = 32;

thread_local! {
    static DRAWN: RefCell<Vec<[u8; 32]>> = const { RefCell::new(Vec::new()) };
}

/// 32 bytes from the host's random source (WASI `random_get`; Envoy answers from BoringSSL), never the same twice.
pub fn entropy() -> [u8; 32] {
    DRAWN.with_borrow_mut(|drawn| {
        if drawn.is_empty() {
            drawn.resize(DRAWN_AT_ONCE, [0; 32]);
            if getrandom::getrandom(drawn.as_flattened_mut()).is_err() {
                log(LogLevel::Critical, "stepgate: the host has no source of randomness");
                // Guessable values would be worse than no answer.
                std::process::abort();
            }
        }
        drawn.pop().unwrap_or_else(|| std::process::abort())
    })
}

/// Sets how often `on_tick` is called. Works for the root context from any of its streams.
pub fn set_tick_period(millis: u32) {
    unsafe { proxy_set_tick_period_milliseconds(millis) };
}

/// At most `max` bytes of a buffer.
pub fn buffer(buffer: Buffer, max: usize) -> Vec<u8> {
    returned_bytes(|data, size| unsafe { proxy_get_buffer_bytes(buffer as u32, 0, max, data, size) })
        .unwrap_or_default()
}

/// The first value of a field. Only for those that come once, such as pseudo-headers: Envoy gives the first value and no more.
pub fn first_value(map: HeaderMap, name: &str) -> Vec<u8> {
    returned_bytes(|data, size| unsafe {
        proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), data, size)
    })
    .unwrap_or_default()
}

/// Changes the request's fields. Works while its headers are on hold, and not after.
pub fn edit_request(edits: &RequestEdits) {
    for name in &edits.removed {
        remove_header(HeaderMap::Request, name);
    }
    for (name, value) in &edits.added {
        add_header(HeaderMap::Request, name, value);
    }
}

/// Removes a field with all its values.
pub fn remove_header(map: HeaderMap, name: &[u8]) {
    unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) };
}

/// Adds a field.
pub fn add_header(map: HeaderMap, name: &str, value: &[u8]) {
    unsafe { proxy_add_header_map_value(map as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
}

/// All fields of a map, read at once: each look at the host costs more than many fields.
pub struct HeaderFields(Pairs);

impl HeaderFields {
    pub fn read(map: HeaderMap) -> Self {
        let bytes = returned_bytes(|data, size| unsafe { proxy_get_header_map_pairs(map as u32, data, size) });
        Self(Pairs(bytes.unwrap_or_default()))
    }

    /// How many bytes they take.
    pub const fn size(&self) -> usize {
        self.0.0.len()
    }

    /// A pseudo-header of the request, empty when absent. A map that the host did not hand over is asked for this one.
    pub fn pseudo_header(&self, name: &str) -> Cow<'_, [u8]> {
        match self.0.iter().find(|(field, _)| *field == name.as_bytes()) {
            Some((_, value)) => Cow::Borrowed(value),
            None if self.0.is_empty() => Cow::Owned(first_value(HeaderMap::Request, name)),
            None => Cow::Borrowed(b""),
        }
    }
}

impl Fields for HeaderFields {
    /// Every request has pseudo-headers: a map that arrives empty is one that the host did not hand over.
    fn each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        self.0.iter().for_each(|(field, value)| visit(field, value));
        !self.0.is_empty()
    }
}

/// A serialised header map: the number of pairs, the length of each name and value, then names and values, each
/// with a NUL behind it. All integers are 32 bits, little endian.
struct Pairs(Vec<u8>);

impl Pairs {
    fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let count = self.integer(0).unwrap_or(0);
        let mut position = count.saturating_mul(8).saturating_add(4);
        (0..count).map_while(move |pair| {
            let name = self.text(&mut position, self.integer(pair * 8 + 4)?)?;
            let value = self.text(&mut position, self.integer(pair * 8 + 8)?)?;
            Some((name, value))
        })
    }

    fn integer(&self, position: usize) -> Option<usize> {
        let bytes = self.0.get(position..position.checked_add(4)?)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    }

    fn text(&self, position: &mut usize, size: usize) -> Option<&[u8]> {
        let end = position.checked_add(size)?;
        let text = self.0.get(*position..end)?;
        *position = end.checked_add(1)?;
        Some(text)
    }
}

fn serialize_pairs(pairs: &[(&str, &str)]) -> Vec<u8> {
    let integer = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = integer(pairs.len()).to_vec();
    for (name, value) in pairs {
        bytes.extend(integer(name.len()));
        bytes.extend(integer(value.len()));
    }
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend(text.as_bytes());
        bytes.push(0);
    }
    bytes
}

/// Sets filter state: `wasm.<name>`, for access logs and later filters.
pub fn set_filter_state(name: &str, value: &str) {
    unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
}

/// A value that all workers share, and its version.
pub fn shared_data(key: &str) -> Option<(Vec<u8>, u32)> {
    let mut cas = 0;
    let value = returned_bytes(|data, size| unsafe {
        proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &raw mut cas)
    });
    value.ok().map(|value| (value, cas))
}

/// Stores a shared value in place of a version; `None`: only where there is none yet. False when somebody else was
/// faster.
pub fn replace_shared_data(key: &str, value: &[u8], version: Option<u32>) -> bool {
    let cas = version.unwrap_or(u32::MAX);
    let status = unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas) };
    status == OK
}

/// Answers the request of the effective context.
pub fn send_local_response(response: &Response, details: &str) {
    let headers: Vec<(&str, &str)> = response.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let headers = serialize_pairs(&headers);
    let grpc_status = response.grpc_status.and_then(|status| i32::try_from(status).ok()).unwrap_or(-1);
    let body = if response.body.is_empty() { null() } else { response.body.as_ptr() };
    unsafe {
        proxy_send_local_response(
            u32::from(response.status),
            details.as_ptr(),
            details.len(),
            body,
            response.body.len(),
            headers.as_ptr(),
            headers.len(),
            grpc_status,
        )
    };
}

/// Lets the request of the effective context go on.
pub fn continue_request() {
    unsafe { proxy_continue_stream(HTTP_REQUEST_STREAM) };
}

/// Makes the following calls act on this context. False when it is gone.
pub fn set_effective_context(context_id: u32) -> bool {
    unsafe { proxy_set_effective_context(context_id) == OK }
}

/// Calls a function that only this host has.
pub fn call_foreign_function(name: &str, arguments: &[u8]) -> Result<Vec<u8>, Status> {
    returned_bytes(|data, size| unsafe {
        proxy_call_foreign_function(name.as_ptr(), name.len(), arguments.as_ptr(), arguments.len(), data, size)
    })
}

/// Defines a counter: `wasmcustom.<name>`.
pub fn define_counter(name: &str) -> Option<u32> {
    define_metric(COUNTER, name)
}

fn define_metric(kind: u32, name: &str) -> Option<u32> {
    let mut id = 0;
    let status = unsafe { proxy_define_metric(kind, name.as_ptr(), name.len(), &raw mut id) };
    (status == OK).then_some(id)
}

/// Adds to a counter.
pub fn add_to_counter(counter: u32, by: i64) {
    unsafe { proxy_increment_metric(counter, by) };
}

/// Sets a gauge: `wasmcustom.<name>`.
pub fn set_gauge(name: &str, value: u64) {
    if let Some(gauge) = define_metric(GAUGE, name) {
        unsafe { proxy_record_metric(gauge, value) };
    }
}
