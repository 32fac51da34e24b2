//! Answers on their way out: the encoded bytes, and the ranges of segment files that stand between them.

use smallvec::SmallVec;

use crate::partition::FileRange;
use crate::rt;
use crate::rt::stages::Stages;
use crate::wire::{ApiKey, Chunk, EncodeError, Message, encode_response};

/// What becomes of a request.
#[derive(Debug)]
pub enum Answer {
    /// These bytes are sent, in their turn.
    Send(Response),
    /// Nothing is sent, ever (Produce with acks=0).
    Nothing,
    /// Nothing is sent and the connection closes, for this reason.
    Close(CloseReason),
}

/// Why a connection is closed from our side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// The frame does not hold what its header says; the text names what.
    Malformed(String),
    /// An API key that does not exist or is not served on this listener, or a version of it that is not.
    Unsupported {
        /// The key as sent.
        api_key: i16,
        /// The version as sent.
        api_version: i16,
    },
    /// A Produce with acks=0 failed; closing is the only way to say so.
    FailedWithoutAnswer,
    /// The answer has no encoding; logged where it happened.
    Unanswerable,
}

impl std::fmt::Display for CloseReason {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CloseReason::Malformed(what) => write!(formatter, "malformed request: {what}"),
            CloseReason::Unsupported { api_key, api_version } => match ApiKey::try_from(*api_key) {
                Ok(known) => write!(formatter, "unsupported request: {} version {api_version}", known.name()),
                Err(_) => write!(formatter, "unsupported request: API key {api_key}"),
            },
            CloseReason::FailedWithoutAnswer => write!(formatter, "a produce request with acks=0 failed"),
            CloseReason::Unanswerable => write!(formatter, "the answer could not be encoded"),
        }
    }
}

/// One framed response: size, header and body. `Chunk::Deferred` tokens are indices into `files`.
#[derive(Debug, Default)]
pub struct Response {
    /// What is sent, in order.
    pub chunks: Vec<Chunk>,
    /// The file ranges that deferred chunks stand for.
    pub files: SmallVec<[FileRange; 1]>,
    /// The way of the request that it answers, if that is traced.
    pub stages: Stages,
}

impl Response {
    /// Encodes `body` as the answer to request `correlation_id` of `api_key` in `version`. What cannot be said in that version is a mistake of ours, which costs this client its
    /// connection and nobody else anything.
    pub fn answer<M: Message>(api_key: ApiKey, version: i16, correlation_id: i32, body: &M, files: SmallVec<[FileRange; 1]>) -> Answer {
        let encoded = encode_response(api_key, version, correlation_id, body);
        Response::encoded(api_key, version, encoded, files)
    }

    /// As `answer`, for a body that takes long to make and to encode: a thread aside does both.
    pub async fn answer_aside<M: Message>(
        api_key: ApiKey,
        version: i16,
        correlation_id: i32,
        body: impl FnOnce() -> M + Send + 'static,
    ) -> Answer {
        let encoded = rt::blocking(move || encode_response(api_key, version, correlation_id, &body())).await;
        Response::encoded(api_key, version, encoded, SmallVec::new())
    }

    fn encoded(api_key: ApiKey, version: i16, encoded: Result<Vec<Chunk>, EncodeError>, files: SmallVec<[FileRange; 1]>) -> Answer {
        match encoded {
            Ok(chunks) => Answer::Send(Response { chunks, files, stages: Stages::default() }),
            Err(error) => {
                tracing::error!(api = api_key.name(), version, %error, "an answer cannot be encoded");
                Answer::Close(CloseReason::Unanswerable)
            }
        }
    }
}
