//! What messages say about an error of the system.

/// The C library's message for an errno, without the number that std appends.
pub fn describe(errno: i32) -> String {
    let mut text = std::io::Error::from_raw_os_error(errno).to_string();
    if let Some(end) = text.rfind(" (os error ") {
        text.truncate(end);
    }
    text
}

/// The message of a system error; the C library's if it has an errno.
pub fn reason(error: &std::io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), describe)
}
