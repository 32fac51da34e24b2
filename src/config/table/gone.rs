//! Settings that older Kafka versions knew and 4.x does not. Kafka 4 passes over them in silence. We say so, and refuse those that
//! would mean another way of running: a broker that starts without its ZooKeeper is not the one that was asked for.

/// What becomes of a setting that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    Warned(&'static str),
    Refused(&'static str),
}

/// By name; a name that ends in `.` stands for every setting that begins so.
const GONE: &[(&str, Gone)] = &[
    ("zookeeper.", Gone::Refused("there is no ZooKeeper mode; use process.roles=broker,controller")),
    ("delegation.token.master.key", Gone::Refused("renamed delegation.token.secret.key")),
    ("control.plane.listener.name", Gone::Refused("controllers have listeners of their own, controller.listener.names")),
    ("host.name", Gone::Refused("use listeners")),
    ("port", Gone::Refused("use listeners")),
    ("advertised.host.name", Gone::Refused("use advertised.listeners")),
    ("advertised.port", Gone::Refused("use advertised.listeners")),
    ("inter.broker.protocol.version", Gone::Warned("replaced by the feature metadata.version")),
    ("log.message.format.version", Gone::Warned("record batches are always version 2")),
    ("log.message.downconversion.enable", Gone::Warned("batches are never converted to older versions")),
    (
        "log.message.timestamp.difference.max.ms",
        Gone::Warned("use log.message.timestamp.before.max.ms and log.message.timestamp.after.max.ms"),
    ),
    ("offsets.commit.required.acks", Gone::Warned("commits always wait for all in-sync replicas")),
    ("password.encoder.", Gone::Warned("passwords set at run time are kept in the metadata log as they are")),
    ("broker.id.generation.enable", Gone::Warned("ids are always given")),
    ("reserved.broker.max.id", Gone::Warned("ids are always given")),
    ("controlled.shutdown.max.retries", Gone::Warned("not used in KRaft")),
    ("controlled.shutdown.retry.backoff.ms", Gone::Warned("not used in KRaft")),
    ("leader.imbalance.per.broker.percentage", Gone::Warned("not used in KRaft")),
    ("auto.include.jmx.reporter", Gone::Warned("there is no JMX outside a JVM")),
    ("group.coordinator.new.enable", Gone::Warned("there is one coordinator")),
    ("group.share.enable", Gone::Warned("replaced by the feature share.version")),
    ("group.share.max.groups", Gone::Warned("not used any more")),
    ("eligible.leader.replicas.enable", Gone::Warned("replaced by the feature eligible.leader.replicas.version")),
    ("metadata.log.segment.min.bytes", Gone::Warned("not used any more")),
];

/// What became of `name`, if it is one of those.
pub fn gone(name: &str) -> Option<Gone> {
    let is = |known: &str| name == known || known.ends_with('.') && name.starts_with(known);
    GONE.iter().find(|(known, _)| is(known)).map(|(_, gone)| *gone)
}
