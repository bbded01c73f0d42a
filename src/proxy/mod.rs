//! Proxies in front of the server: what they say of a connection, and who may say it (pure).
//!
//! | module | what it is |
//! |---|---|
//! | [`header`] | the PROXY protocol |
//! | [`proxied`] | what it has told of a connection |
//! | [`networks`] | the peers that are believed |

pub mod header;
pub mod networks;
pub mod proxied;
