//! One replica on its core, a narrator: append, read, wait.
