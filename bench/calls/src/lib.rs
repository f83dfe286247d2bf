//! A filter that makes the host calls which the gate makes for a token that it knows, has the callbacks that these need, and
//! does nothing else: without the SDK, without looking at what it gets. A filter with the same effects cannot be faster.

use std::cell::UnsafeCell;
use std::ptr::null_mut;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize) -> u32;
    fn proxy_add_header_map_value(map: u32, key: *const u8, key_size: usize, value: *const u8, size: usize) -> u32;
}

const REQUEST_HEADERS: u32 = 0;
const RESPONSE_HEADERS: u32 = 2;
const YES: u32 = 1;
const CONTINUE: u32 = 0;

/// Where the host puts what it returns, over what it has put there before.
struct Scratch(UnsafeCell<[u8; 65_536]>);

// SAFETY: a module has one thread.
unsafe impl Sync for Scratch {}

static SCRATCH: Scratch = Scratch(UnsafeCell::new([0; 65_536]));

#[unsafe(no_mangle)]
pub extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    if size <= 65_536 { SCRATCH.0.get().cast() } else { null_mut() }
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_vm_start(_: u32, _: u32) -> u32 {
    YES
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_configure(_: u32, _: u32) -> u32 {
    YES
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_context_create(_: u32, _: u32) {}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_request_headers(_: u32, _: u32, _: u32) -> u32 {
    let (mut data, mut size, mut time) = (null_mut(), 0, 0);
    let (name, value) = ("stepgate", "satisfied");
    // SAFETY: the pointers are to live locals and statics, of the lengths that stand beside them.
    unsafe {
        proxy_get_header_map_pairs(REQUEST_HEADERS, &raw mut data, &raw mut size);
        proxy_get_current_time_nanoseconds(&raw mut time);
        proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len());
    }
    CONTINUE
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_response_headers(_: u32, _: u32, _: u32) -> u32 {
    let (name, value) = ("vary", "Cookie");
    // SAFETY: as above.
    unsafe { proxy_add_header_map_value(RESPONSE_HEADERS, name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
    CONTINUE
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_delete(_: u32) {}
