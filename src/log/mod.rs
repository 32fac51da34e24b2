//! The log of one partition without I/O: offsets, validation, producer state, leader epochs, indexes and Kafka's file formats.
