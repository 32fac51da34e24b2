//! Listeners and connections: frames in, responses out in order, everything bounded.
