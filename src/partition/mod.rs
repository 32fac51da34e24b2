//! One replica on its core, a narrator: append, read, wait.

mod plan;

pub use plan::{FileRange, Piece};
