//! What the library needs of the operating system, behind safe interfaces.
//!
//! Some of these modules wrap a system call that `nix` and `socket2` do not cover; others are small
//! mechanisms of their own.
//!
//! | module | what it is |
//! |---|---|
//! | [`process`], [`child`], [`anew`], [`usage`], [`time_slice`], [`process_state`], [`fork_detection`] | fork, starting programs, this one among them, reaping; processor time; states of others; detecting a fork |
//! | [`sigterm`], [`worker_signals`], [`alarm`], [`dispositions`], [`blocked_signals`] | signals, and the timer that kills a worker |
//! | [`poll`], [`bounded_call`], [`pipe`], [`transfer`], [`receive`], [`flusher`] | waiting, writing and receiving; output that may wait for more |
//! | [`resolve`], [`defer_accept`], [`disconnect`], [`hangup`], [`socket_queues`], [`open_sockets`] | names and sockets |
//! | [`own_file`], [`beneath`], [`file_transfer`], [`lock`], [`standard`], [`environment`], [`inherited_descriptors`] | files and descriptors |
//! | [`shared`], [`secret`], [`secret_heap`], [`fallback_allocator`], [`freed_memory`] | shared memory, memory for keys, a reserve for failed allocations, and what goes back to the kernel |
//! | [`calendar`], [`error_text`] | local time, and errors of the system, as text |
//! | [`random`] | random bytes for ids |

pub mod alarm;
pub mod anew;
pub mod beneath;
pub mod blocked_signals;
pub mod bounded_call;
pub mod calendar;
pub mod child;
pub mod defer_accept;
pub mod disconnect;
pub mod dispositions;
pub mod environment;
pub mod error_text;
pub mod fallback_allocator;
pub mod file_transfer;
pub mod flusher;
pub mod fork_detection;
pub mod freed_memory;
pub mod hangup;
pub mod inherited_descriptors;
pub mod lock;
pub mod monotonic;
pub mod open_sockets;
pub mod output_slot;
pub mod own_file;
pub mod pipe;
pub mod poll;
pub mod process;
pub mod process_state;
pub mod random;
pub mod receive;
pub mod resolve;
pub mod secret;
pub mod secret_heap;
pub mod shared;
pub mod sigterm;
pub mod socket_queues;
pub mod standard;
pub mod time_slice;
pub mod transfer;
pub mod usage;
pub mod worker_signals;
