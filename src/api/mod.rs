//! Requests: one exhaustive match from API key to handler, a file per family: authorise, split by owner, call, gather.
