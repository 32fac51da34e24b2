//! What a member is told instead of what it asked for: an error code and a sentence.

use crate::wire::{ErrorCode, Str};

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) error: ErrorCode,
    pub(crate) message: Str,
}

impl Refusal {
    pub(crate) fn new(error: ErrorCode, message: impl Into<String>) -> Refusal {
        Refusal { error, message: Str::from(message.into()) }
    }
}
