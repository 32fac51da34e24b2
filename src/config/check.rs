//! What settings must fulfil together before a node starts: Kafka's own cross checks as far as they concern a single node, and what this
//! version cannot be yet. Whoever asks for something that would be missing hears so instead of getting less than was asked for.

use super::broker::Config;
use super::listener::SecurityProtocol;
use super::table::{self, Effect, Scope};
use super::value::{self, Value, host_and_port};

/// Adds what is wrong to `errors`, each a line that names setting, value and rule, and what is doubtful to `warnings`.
pub fn check(config: &Config, errors: &mut Vec<String>, warnings: &mut Vec<String>) {
    check_identity(config, errors);
    check_roles(config, errors);
    check_voters(config, errors);
    check_listeners(config, errors);
    check_unbuilt(config, errors);
    check_relations(config, errors);
    check_cordoned(config, errors);
    check_connections(config, errors);
    check_groups(config, errors);
    warn_of_replication(config, warnings);
}

fn check_identity(config: &Config, errors: &mut Vec<String>) {
    for name in ["process.roles", "node.id"] {
        if !config.is_set(name) {
            errors.push(format!("{name} is missing; a node with process.roles must say it"));
        }
    }
    let (node, broker) = (config.value("node.id"), config.value("broker.id"));
    if *node != Value::Null && node != broker {
        errors.push(format!("broker.id={} must be equal to node.id={}", shown(broker), shown(node)));
    }
}

fn check_roles(config: &Config, errors: &mut Vec<String>) {
    let roles = config.process_roles();
    if !roles.is_empty() && roles.len() != 2 {
        errors.push(format!(
            "process.roles={}: a node of a larger cluster cannot be served yet; a single node is process.roles=broker,controller",
            roles.join(",")
        ));
    }
}

fn check_voters(config: &Config, errors: &mut Vec<String>) {
    let voters = config.controller_quorum_voters();
    let servers = config.controller_quorum_bootstrap_servers();
    for (name, items) in [("controller.quorum.voters", voters), ("controller.quorum.bootstrap.servers", servers)] {
        if items.len() > 1 {
            errors.push(format!("{name}={}: a quorum of more than one node cannot be served yet", items.join(",")));
        }
    }
    let node_id = shown(config.value("node.id"));
    if let [voter] = voters
        && voter.split_once('@').is_some_and(|(id, _)| id.parse().ok() != node_id.parse::<i32>().ok())
    {
        errors.push(format!("controller.quorum.voters={voter}: a controller must be a voter, and this is node.id={node_id}"));
    }
}

fn check_listeners(config: &Config, errors: &mut Vec<String>) {
    let names = config.controller_listener_names();
    // Our own start names no controller listener; a file for Kafka has to.
    let for_kafka = config.given().get("process.roles").is_some_and(|given| given.origin != super::sources::Origin::Start);
    if for_kafka && names.is_empty() {
        errors.push("controller.listener.names is missing; a node with process.roles must name them".into());
    }
    if !names.is_empty() && !config.listeners().is_empty() && !config.listeners().iter().any(|listener| listener.controller) {
        errors.push(format!("controller.listener.names={}: at least one of them must be among the listeners", names.join(",")));
    }
    if !config.listeners().is_empty() && config.broker_listeners().next().is_none() {
        errors.push(format!(
            "listeners={}: all of them are controller listeners, none is left for clients",
            config.bound_listeners().join(",")
        ));
    }
    for listener in config.broker_listeners().filter(|listener| listener.protocol != SecurityProtocol::Plaintext) {
        errors.push(format!("listeners: {} uses {}; only PLAINTEXT can be served yet", listener.name, listener.protocol.name()));
    }
    if let Value::Text(inter_broker) = config.value("inter.broker.listener.name") {
        if config.is_set("security.inter.broker.protocol") {
            errors.push("only one of inter.broker.listener.name and security.inter.broker.protocol may be set".into());
        }
        if !config.broker_listeners().any(|listener| listener.name == inter_broker.to_uppercase()) {
            errors.push(format!("inter.broker.listener.name={inter_broker} is not among the listeners"));
        }
    }
}

fn check_unbuilt(config: &Config, errors: &mut Vec<String>) {
    for setting in table::settings(Scope::Broker).filter(|setting| setting.effect == Effect::Refused) {
        let value = config.value(setting.name);
        if *value != value::default(setting) {
            let value = if setting.sensitive() { "[hidden]".into() } else { shown(value) };
            errors.push(format!("{}={value} cannot be served: {}", setting.name, setting.documentation()));
        }
    }
}

fn check_relations(config: &Config, errors: &mut Vec<String>) {
    for (smaller, larger) in [
        ("replica.fetch.wait.max.ms", "replica.lag.time.max.ms"),
        ("replica.fetch.wait.max.ms", "replica.socket.timeout.ms"),
        ("log.cleaner.min.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms"),
        ("group.min.session.timeout.ms", "group.max.session.timeout.ms"),
    ] {
        check_order(config, smaller, larger, errors);
    }
    let whole = |name: &str| config.value(name).whole();
    for (name, fits, rule) in [
        ("log.roll.ms", whole("log.roll.ms").is_none_or(|time| time >= 1), "must be at least 1"),
        ("log.roll.jitter.ms", whole("log.roll.jitter.ms").is_none_or(|time| time >= 0), "must be at least 0"),
        ("log.retention.ms", is_retention(whole("log.retention.ms")), "must be unlimited (-1) or at least 1"),
        ("log.retention.minutes", is_retention(whole("log.retention.minutes")), "must be unlimited (-1) or at least 1"),
        ("log.retention.hours", is_retention(whole("log.retention.hours")), "must be unlimited (-1) or at least 1"),
        ("offsets.topic.compression.codec", is_codec(whole("offsets.topic.compression.codec")), "must be between 0 and 4"),
        (
            "log.cleaner.dedupe.buffer.size",
            whole("log.cleaner.dedupe.buffer.size") > whole("log.cleaner.threads").map(|threads| threads << 20),
            "must be more than 1 MiB for each of log.cleaner.threads",
        ),
        (
            "queued.max.request.bytes",
            config.queued_max_request_bytes() <= 0 || config.queued_max_request_bytes() >= i64::from(config.socket_request_max_bytes()),
            "must be at least socket.request.max.bytes, or -1",
        ),
    ] {
        if !fits {
            errors.push(format!("{name}={} {rule}", shown(config.value(name))));
        }
    }
}

fn check_cordoned(config: &Config, errors: &mut Vec<String>) {
    let Value::List(cordoned) = config.value("cordoned.log.dirs") else { return };
    let known = |directory: &&String| config.log_directories().iter().any(|known| known.as_os_str() == directory.as_str());
    let missing: Vec<&str> = cordoned.iter().filter(|directory| *directory != "*" && !known(directory)).map(String::as_str).collect();
    if !missing.is_empty() {
        let missing = missing.join(",");
        errors.push(format!("All entries in cordoned.log.dirs must be present in log.dirs or log.dir. Missing entries : {missing}"));
    }
}

fn check_connections(config: &Config, errors: &mut Vec<String>) {
    let exceptions = match config.value("max.connections.per.ip.overrides") {
        Value::Text(text) => text.as_str(),
        _ => "",
    };
    if config.max_connections_per_ip() == 0 && exceptions.is_empty() {
        errors.push("max.connections.per.ip=0 is allowed only together with max.connections.per.ip.overrides".into());
    }
    let pairs = exceptions.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    for pair in pairs.filter(|pair| connection_exception(pair).is_none()) {
        errors.push(format!("max.connections.per.ip.overrides={exceptions}: {pair} is not host:count"));
    }
}

/// Host and count of one exception; the host may be an IPv6 address, so the last colon counts.
pub(super) fn connection_exception(pair: &str) -> Option<(&str, i32)> {
    let (host, count) = pair.rsplit_once(':')?;
    let (host, count) = (host.trim(), count.trim().parse().ok()?);
    let legal = host_and_port(&format!("{host}:0")).is_some() && count >= 0;
    legal.then_some((host, count))
}

fn check_groups(config: &Config, errors: &mut Vec<String>) {
    let Value::List(protocols) = config.value("group.coordinator.rebalance.protocols") else { return };
    if !protocols.iter().any(|protocol| protocol == "classic") {
        errors.push(format!("group.coordinator.rebalance.protocols={}: classic cannot be left out", protocols.join(",")));
    }
    for bounded in group_bounds() {
        check_order(config, &bounded.least, &bounded.name, errors);
        check_order(config, &bounded.name, &bounded.most, errors);
    }
    for family in ["consumer", "share", "streams"] {
        let name = |what: &str| format!("group.{family}.{what}.ms");
        let (heartbeat, session) = (name("heartbeat.interval"), name("session.timeout"));
        let whole = |name: &str| config.value(name).whole();
        if whole(&heartbeat) >= whole(&session) {
            errors.push(format!(
                "{heartbeat}={} must be less than {session}={}",
                shown(config.value(&heartbeat)),
                shown(config.value(&session))
            ));
        }
    }
}

struct Bounded {
    name: String,
    least: String,
    most: String,
}

/// The group settings that stand between a smallest and a largest one.
fn group_bounds() -> Vec<Bounded> {
    let mut bounds = Vec::new();
    for (family, names) in [
        ("consumer", &["session.timeout.ms", "heartbeat.interval.ms", "assignment.interval.ms"][..]),
        ("streams", &["session.timeout.ms", "heartbeat.interval.ms", "assignment.interval.ms"]),
        (
            "share",
            &[
                "session.timeout.ms",
                "heartbeat.interval.ms",
                "assignment.interval.ms",
                "delivery.count.limit",
                "record.lock.duration.ms",
                "partition.max.record.locks",
            ],
        ),
    ] {
        for name in names {
            bounds.push(Bounded {
                name: format!("group.{family}.{name}"),
                least: format!("group.{family}.min.{name}"),
                most: format!("group.{family}.max.{name}"),
            });
        }
    }
    bounds
}

fn check_order(config: &Config, smaller: &str, larger: &str, errors: &mut Vec<String>) {
    let (left, right) = (config.value(smaller), config.value(larger));
    if left.whole() > right.whole() {
        errors.push(format!("{smaller}={} must not be more than {larger}={}", shown(left), shown(right)));
    }
}

/// One node holds one replica: what asks for more cannot be made, as with Kafka.
fn warn_of_replication(config: &Config, warnings: &mut Vec<String>) {
    let factors = [
        ("default.replication.factor", "making a topic without a replication factor of its own"),
        ("offsets.topic.replication.factor", "consumer groups"),
        ("transaction.state.log.replication.factor", "transactions"),
        ("transaction.state.log.min.isr", "transactions"),
    ];
    for (name, what) in factors {
        if let Some(factor) = config.value(name).whole().filter(|factor| *factor > 1) {
            warnings.push(format!("{name}={factor}, but a single node holds one replica: {what} will not work until it is 1"));
        }
    }
    if let Some(least) = config.value("min.insync.replicas").whole().filter(|least| *least > 1) {
        warnings.push(format!(
            "min.insync.replicas={least}, but a single node holds one replica: acks=all means that this one has the records"
        ));
    }
}

fn is_retention(time: Option<i64>) -> bool {
    time.is_none_or(|time| time == -1 || time >= 1)
}

fn is_codec(codec: Option<i64>) -> bool {
    codec.is_some_and(|codec| (0..=4).contains(&codec))
}

fn shown(value: &Value) -> String {
    value.text().unwrap_or_else(|| "null".into())
}

#[cfg(test)]
mod tests {
    use super::super::sources::{File, Sources};
    use super::super::{Config, ConfigErrors, Loaded};

    fn load(file: &str, arguments: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
        Config::load(&Sources {
            file: (!file.is_empty()).then(|| File { name: "server.properties".into(), content: file.into() }),
            environment: Vec::new(),
            arguments: arguments.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect(),
        })
    }

    /// A single node as Kafka's own files describe it, with static voters and with a dynamic quorum, starts as it is.
    #[test]
    fn single_node_files_for_kafka_work_unchanged() {
        let shared = "process.roles=broker,controller\nnode.id=1\n\
            listeners=PLAINTEXT://:9092,CONTROLLER://:9093\ninter.broker.listener.name=PLAINTEXT\n\
            advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093\ncontroller.listener.names=CONTROLLER\n\
            listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL\n\
            num.network.threads=3\nnum.io.threads=8\nsocket.send.buffer.bytes=102400\nsocket.receive.buffer.bytes=102400\n\
            socket.request.max.bytes=104857600\nlog.dirs=/tmp/kraft-combined-logs\nnum.partitions=1\nnum.recovery.threads.per.data.dir=1\n\
            offsets.topic.replication.factor=1\nshare.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
            transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\nlog.retention.hours=168\n\
            log.segment.bytes=1073741824\nlog.retention.check.interval.ms=300000\n";
        for quorum in ["controller.quorum.voters=1@localhost:9093", "controller.quorum.bootstrap.servers=localhost:9093"] {
            let Loaded { config, warnings } = load(&format!("{shared}{quorum}"), &[]).unwrap();
            assert!(warnings.is_empty(), "{warnings:?}");
            assert_eq!(config.broker_listeners().map(|listener| listener.name.as_str()).collect::<Vec<_>>(), ["PLAINTEXT"]);
            assert_eq!(config.log_directories(), [std::path::PathBuf::from("/tmp/kraft-combined-logs")]);
            assert_eq!((config.node_id(), config.offsets_topic_replication_factor()), (1, 1));
        }
    }

    #[test]
    fn a_node_that_was_told_nothing_serves_this_host() {
        let Loaded { config, warnings } = load("", &[]).unwrap();
        assert!(warnings.is_empty());
        let listener = &config.listeners()[0];
        assert_eq!((listener.host.as_str(), listener.port), ("127.0.0.1", 9092));
        assert_eq!(config.journal_directory(), std::path::Path::new("./corelane-data"));
        assert_eq!(config.topic_defaults().flush_messages, 1);
        assert!(load("", &[("listeners", "PLAINTEXT://0.0.0.0:0")]).is_ok());
    }

    /// Each broken rule is told with setting and value.
    #[test]
    fn what_cannot_be_is_refused() {
        let kafka = "process.roles=broker,controller\nnode.id=1\ncontroller.listener.names=C\nlisteners=PLAINTEXT://:1,C://:2\n\
                     controller.quorum.voters=1@a:2\n";
        for (change, rule) in [
            ("log.retention.hours=abc", "Invalid value abc for configuration log.retention.hours: Not a number of type INT"),
            ("log.retention.hours=abc", "(server.properties line 6)"),
            ("process.roles=broker", "process.roles=broker: a node of a larger cluster cannot be served yet"),
            ("process.roles=controller", "process.roles=controller: a node"),
            ("node.id=2", "controller.quorum.voters=1@a:2: a controller must be a voter, and this is node.id=2"),
            ("broker.id=2", "broker.id=2 must be equal to node.id=1"),
            ("controller.quorum.voters=1@a:2,2@b:2", "quorum of more than one node"),
            ("controller.quorum.bootstrap.servers=a:1,b:1", "quorum of more than one node"),
            (
                "controller.listener.names=D\nlistener.security.protocol.map=C:PLAINTEXT,PLAINTEXT:PLAINTEXT",
                "controller.listener.names=D: at least one",
            ),
            ("listeners=C://:2", "none is left for clients"),
            ("listeners=SSL://:1,C://:2\nlistener.security.protocol.map=SSL:SSL,C:PLAINTEXT", "SSL uses SSL; only PLAINTEXT"),
            ("inter.broker.listener.name=FOO", "inter.broker.listener.name=FOO is not among the listeners"),
            ("authorizer.class.name=x.Y", "authorizer.class.name=x.Y cannot be served"),
            ("delegation.token.secret.key=x", "delegation.token.secret.key=[hidden] cannot be served"),
            ("remote.log.storage.system.enable=true", "Tiered storage. Not built yet"),
            ("replica.fetch.wait.max.ms=40000", "must not be more than replica.lag.time.max.ms=30000"),
            ("log.roll.ms=0", "log.roll.ms=0 must be at least 1"),
            ("log.retention.ms=0", "log.retention.ms=0 must be unlimited (-1) or at least 1"),
            ("queued.max.request.bytes=5", "queued.max.request.bytes=5 must be at least socket.request.max.bytes"),
            ("log.cleaner.dedupe.buffer.size=1048576", "must be more than 1 MiB for each"),
            ("max.connections.per.ip=0", "only together with max.connections.per.ip.overrides"),
            ("cordoned.log.dirs=/nope", "Missing entries : /nope"),
            ("max.connections.per.ip.overrides=a", "a is not host:count"),
            ("group.coordinator.rebalance.protocols=consumer", "classic cannot be left out"),
            ("group.consumer.session.timeout.ms=70000", "must not be more than group.consumer.max.session.timeout.ms=60000"),
            ("zookeeper.connect=z:1", "zookeeper.connect (server.properties line 6) is gone"),
            ("listener.name.c.max.connections=x", "as listener.name.c.max.connections"),
        ] {
            let errors = load(&format!("{kafka}{change}\n"), &[]).unwrap_err().errors;
            assert!(errors.iter().any(|error| error.contains(rule)), "{change}: {errors:?}");
        }
        for (file, missing) in [
            ("process.roles=broker,controller\n", "node.id"),
            (&kafka.replace("controller.listener.names=C\n", ""), "controller.listener.names"),
        ] {
            let errors = load(file, &[]).unwrap_err().errors;
            assert!(errors.iter().any(|error| error.starts_with(&format!("{missing} is missing"))), "{errors:?}");
        }
    }

    #[test]
    fn more_replicas_than_nodes_are_warned_of() {
        let file = "process.roles=broker,controller\nnode.id=1\ncontroller.listener.names=C\nlisteners=PLAINTEXT://:1,C://:2\n";
        let warnings = load(file, &[("min.insync.replicas", "2"), ("default.replication.factor", "3")]).unwrap().warnings;
        for told in ["offsets.topic.replication.factor=3", "min.insync.replicas=2", "default.replication.factor=3"] {
            assert!(warnings.iter().any(|warning| warning.starts_with(&format!("{told}, but a single node"))), "{told}: {warnings:?}");
        }
    }

    #[test]
    fn connections_are_bounded_by_listener_and_by_host() {
        let arguments = [
            ("max.connections.per.ip.overrides", "127.0.0.1:5, ::1:6"),
            ("max.connections", "9"),
            ("listeners", "PLAINTEXT://127.0.0.1:0,SIDE://127.0.0.1:0"),
            ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,SIDE:PLAINTEXT"),
            ("listener.name.side.max.connections", "3"),
        ];
        let config = load("", &arguments).unwrap().config;
        assert_eq!(config.connections_per_ip_exceptions().collect::<Vec<_>>(), [("127.0.0.1", 5), ("::1", 6)]);
        let bound = |index: usize| config.listener_connections_max(&config.listeners()[index]);
        assert_eq!((bound(0), bound(1)), (9, 3));
    }
}
