//! Which worker has which connections: their load is observed, and connections move.
//!
//! | module | what it is |
//! |---|---|
//! | [`observation`] | how busy workers are, and which connections make most of the work |
//! | [`spread`] | from workers that are slow, or have much more than others |
//! | [`locality`], [`grouping`] | to the worker that has the others of the same processor (the latter pure) |
//! | [`processors`] | whether the machine has processors to spare |

pub mod grouping;
pub mod locality;
pub mod observation;
pub mod processors;
pub mod spread;
