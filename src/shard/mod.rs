//! The state of one core, who owns what, and the only door between cores.
