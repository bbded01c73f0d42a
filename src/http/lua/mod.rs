//! What Lua sees of a request.
//!
//! | module | what it is |
//! |---|---|
//! | `step`, `steps`, `body_steps`, `form_steps` | the steps of a connection as Lua functions |
//! | `request_methods` | the methods that send the response, as methods in C |
//! | `turn` | the usual turn of a request, as cheap as a C function |
//! | `views`, `tables` | what a request says, as Lua values made when they are asked for |
//! | `views.lua`, `maps.lua` | the same: lists, assignments, `pairs` |
//! | `handler.lua`, `cycle.lua`, `ending.lua`, `body.lua`, `streaming.lua` | waiting, parking, and the calls of the application's functions |

pub mod body_steps;
pub mod form_steps;
pub mod request_methods;
pub mod step;
pub mod steps;
pub mod tables;
pub mod turn;
pub mod views;
