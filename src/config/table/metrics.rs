//! Metrics of the JVM broker and client telemetry.

use super::*;

pub(super) const ROWS: &[Setting] = settings! {
    /// Samples over which Kafka's own metrics are measured.
    "metrics.num.samples": Int = "2", AtLeast(1), ReadOnly, Ignored;

    /// Length of one sample of Kafka's own metrics.
    "metrics.sample.window.ms": Long = "30000", AtLeast(1), ReadOnly, Ignored;

    /// Java classes that report metrics.
    "metric.reporters": List = "org.apache.kafka.common.metrics.JmxReporter", Items(MayBeEmpty), Cluster, Ignored;

    /// Detail of Kafka's own metrics: INFO, DEBUG, TRACE.
    "metrics.recording.level": String = "INFO", Any, ReadOnly, Ignored;

    /// Java classes that report Kafka's older metrics.
    "kafka.metrics.reporters": List = "", Items(MayBeEmpty), ReadOnly, Ignored;

    /// How often those reporters look.
    "kafka.metrics.polling.interval.secs": Int = "10", AtLeast(1), ReadOnly, Ignored;

    /// Largest payload of PushTelemetry, else TELEMETRY_TOO_LARGE.
    "telemetry.max.bytes": Int = "1048576", AtLeast(1), ReadOnly, Later;
};
