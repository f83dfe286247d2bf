//! Hosts: they do the I/O that the gate asks for, and hold no policy. The target chooses one.

#[cfg(target_os = "unknown")]
mod edge;
#[cfg(target_os = "wasi")]
mod envoy;
