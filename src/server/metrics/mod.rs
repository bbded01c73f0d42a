//! Metrics: what the server and the application count, in shared memory, and their text.
//!
//! | module | what it is |
//! |---|---|
//! | [`area`] | the shared memory, which passes from generation to generation |
//! | [`pool`] | what is counted for each pool |
//! | [`totals`] | what is counted for the whole server |
//! | [`push`] | what is counted of held connections |
//! | [`server`] | what the supervisor does with that |
//! | [`declaration`] | names, labels and buckets of the application's metrics, checked (pure) |
//! | [`buckets`] | bounds of histograms (pure) |
//! | [`series`] | the values of one of the application's metrics, for each set of label values |
//! | [`registry`] | all metrics of a Lua state |
//! | [`exposition`] | OpenMetrics text, and the older text format (pure) |
//! | [`report`] | everything as text |
//! | [`lua`] | `counter`, `gauge`, `histogram`, `metrics` |

pub mod area;
mod buckets;
mod declaration;
pub mod exposition;
pub mod lua;
pub mod pool;
pub mod push;
pub mod registry;
pub mod report;
mod series;
pub mod server;
pub mod totals;
