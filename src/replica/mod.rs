//! High watermark and in-sync replicas of one partition.
