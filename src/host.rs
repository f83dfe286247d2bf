//! Hosts: they do the I/O that the gate asks for, and hold no policy.

mod envoy;
