//! What Lua sees of a request.
//!
//! | module | what it is |
//! |---|---|
//! | `step`, `steps`, `body_steps`, `form_steps` | the steps of a connection as Lua functions |
//! | `request_methods` | the methods that send the response, as methods in C |
//! | `provenance` | where a request comes from and what names it |
//! | `hold` | `request:hold`: its options |
//! | `log_field` | what a handler adds to the access log |
//! | `turn` | the `connect` function: a turn as a method in C |
//! | `views`, `tables` | what a request says, as Lua values made when they are asked for |
//! | `views.lua`, `maps.lua` | the same: lists, assignments, `pairs` |
//! | `handler.lua`, `request.lua`, `body.lua`, `streaming.lua` | request objects, and the calls of the application's callbacks |
//! | `replies`, `replies.lua` | methods for common responses and cookies |
//! | `file_steps`, `files.lua` | responses that are files |
//! | `acme.lua` | `http.acme_challenge` |
//! | `error_log.lua` | `http.error_log` |

pub mod body_steps;
pub mod file_steps;
pub mod form_steps;
pub mod hold;
pub mod log_field;
pub mod provenance;
pub mod replies;
pub mod request_methods;
pub mod step;
pub mod steps;
pub mod tables;
pub mod turn;
pub mod views;
