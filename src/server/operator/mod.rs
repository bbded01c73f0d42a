//! The operator's interface to a server.
//!
//! | module | what it is |
//! |---|---|
//! | [`options`], [`service`] | `run{...}`: log, pid file, background |
//! | [`pid_file`], [`daemon`], [`notifier`] | their parts |
//! | [`privileges`] | as which users the processes run |
//! | [`launcher`], [`check`] | the program `moonbridge`, and its `--check` |
//! | [`log`], [`line_queue`], [`log_stream`], [`syslog`] | the log and its outputs |
//! | [`access_log`] | a line for each request |
//! | [`stderr_lines`] | the standard error of workers |
//! | [`status`] | `status()`: what the pools are doing |

pub mod access_log;
pub mod check;
pub mod daemon;
pub mod launcher;
pub mod line_queue;
pub mod log;
pub mod log_stream;
pub mod notifier;
pub mod options;
pub mod pid_file;
pub mod privileges;
pub mod service_files;
pub mod status;
pub mod stderr_lines;
pub mod syslog;
