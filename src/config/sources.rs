//! Where the settings of a start come from, strongest first: `--set key=value`, the environment (`CORELANE_...`, then `KAFKA_...`),
//! the file of `--config`, and beneath them the few settings with which a node starts when nobody says anything.
//!
//! All sources arrive as text; nothing is read here. The result says of every setting where it was said, because that is what somebody
//! with a wrong value needs to know.

use std::collections::BTreeMap;
use std::fmt;

use java_properties::{LineContent, PropertiesIter};

use super::table::{self, Gone, Scope};

/// What a start was given.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file of `--config`, in the format of Java properties, UTF-8.
    pub file: Option<File>,
    /// The whole environment; what is not meant for us is passed over.
    pub environment: Vec<(String, String)>,
    /// `--set key=value`, in order; `--data-dir DIR` is `log.dirs=DIR`.
    pub arguments: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
pub struct File {
    /// As the person named it.
    pub name: String,
    pub content: Vec<u8>,
}

/// A setting that somebody gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    pub value: String,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Argument,
    Environment {
        variable: String,
    },
    File {
        name: String,
        line: usize,
    },
    /// Given by us, because nobody gave a process role.
    Start,
    /// Follows from another setting.
    Follows {
        from: &'static str,
    },
}

/// All settings that were given, and what the person should hear about them.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    pub given: BTreeMap<String, Given>,
    pub warnings: Vec<String>,
    /// Each stops the start.
    pub errors: Vec<String>,
}

/// With what a node starts that was told nothing: broker and controller in one, reachable from this host, internal topics with one
/// replica. A file for Kafka names a process role and gets Kafka's defaults instead.
const START: [(&str, &str); 9] = [
    ("process.roles", "broker,controller"),
    ("node.id", "1"),
    ("listeners", "PLAINTEXT://127.0.0.1:9092"),
    ("log.dirs", "./corelane-data"),
    ("offsets.topic.replication.factor", "1"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
];

/// Variables that Kafka's scripts and images read for themselves.
const NOT_SETTINGS: [&str; 22] = [
    "KAFKA_HOME",
    "KAFKA_VERSION",
    "KAFKA_OPTS",
    "KAFKA_HEAP_OPTS",
    "KAFKA_JMX_OPTS",
    "KAFKA_JMX_PORT",
    "KAFKA_JMX_HOSTNAME",
    "KAFKA_RMI_HOSTNAME",
    "KAFKA_GC_LOG_OPTS",
    "KAFKA_JVM_PERFORMANCE_OPTS",
    "KAFKA_LOG4J_OPTS",
    "KAFKA_LOG4J_CMD_OPTS",
    "KAFKA_LOG4J_LOGGERS",
    "KAFKA_LOG4J_ROOT_LOGLEVEL",
    "KAFKA_TOOLS_LOG4J_LOGLEVEL",
    "KAFKA_CLASSPATH",
    "KAFKA_DEBUG",
    "KAFKA_MODE",
    "KAFKA_USER",
    "KAFKA_CLUSTER_ID",
    "KAFKA_SERVER_PROPERTIES",
    "KAFKA_CONFIG",
];

impl Sources {
    /// Everything that was given, each setting from its strongest source.
    pub fn gather(&self) -> Gathered {
        let mut gathered = Gathered::default();
        self.read_file(&mut gathered);
        for prefix in ["KAFKA_", "CORELANE_"] {
            self.read_environment(prefix, &mut gathered);
        }
        self.read_arguments(&mut gathered);
        gathered.supply_start();
        gathered.tie_node_id();
        gathered.judge_names();
        gathered
    }

    fn read_file(&self, gathered: &mut Gathered) {
        let Some(file) = &self.file else { return };
        for line in PropertiesIter::new_with_encoding(file.content.as_slice(), encoding_rs::UTF_8) {
            match line {
                Ok(line) => {
                    let origin = Origin::File { name: file.name.clone(), line: line.line_number() };
                    if let LineContent::KVPair(key, value) = line.consume_content() {
                        gathered.give(key, value, origin);
                    }
                }
                Err(error) => {
                    let line = error.line_number().map(|line| format!(" line {line}")).unwrap_or_default();
                    gathered.errors.push(format!("{}{line}: {error}", file.name));
                    return;
                }
            }
        }
    }

    fn read_environment(&self, prefix: &str, gathered: &mut Gathered) {
        for (variable, value) in &self.environment {
            let Some(name) = variable.strip_prefix(prefix) else { continue };
            if !NOT_SETTINGS.contains(&variable.as_str()) && !tells_of_a_service(name, value) {
                gathered.give(setting_of(name), value.clone(), Origin::Environment { variable: variable.clone() });
            }
        }
    }

    fn read_arguments(&self, gathered: &mut Gathered) {
        for (key, value) in &self.arguments {
            gathered.give(key.clone(), value.clone(), Origin::Argument);
        }
    }
}

impl Gathered {
    /// A later source is a stronger one.
    fn give(&mut self, key: String, value: String, origin: Origin) {
        self.given.insert(key, Given { value, origin });
    }

    fn supply_start(&mut self) {
        if self.given.contains_key("process.roles") {
            return;
        }
        let has_directory = self.given.contains_key("log.dir");
        let has_id = self.given.contains_key("broker.id");
        for (key, value) in START {
            let said_otherwise = key == "log.dirs" && has_directory || key == "node.id" && has_id;
            if !said_otherwise {
                self.given.entry(key.into()).or_insert(Given { value: value.into(), origin: Origin::Start });
            }
        }
    }

    /// `broker.id` is the old name of `node.id`: who gives one has given both.
    fn tie_node_id(&mut self) {
        for (from, to) in [("node.id", "broker.id"), ("broker.id", "node.id")] {
            if let (Some(given), false) = (self.given.get(from), self.given.contains_key(to)) {
                let given = Given { value: given.value.clone(), origin: Origin::Follows { from } };
                self.given.insert(to.into(), given);
            }
        }
    }

    /// Warns of names that nobody knows and of settings that are gone; refuses those whose absence would change the meaning.
    fn judge_names(&mut self) {
        for (key, given) in &self.given {
            let place = &given.origin;
            match table::gone(key) {
                Some(Gone::Refused(why)) => self.errors.push(format!("{key} ({place}) is gone: {why}")),
                Some(Gone::Warned(why)) => self.warnings.push(format!("{key} ({place}) is gone and does nothing: {why}")),
                None if is_known(key) => {}
                None => {
                    let nearest = table::nearest(key).map(|name| format!("; did you mean {name}?")).unwrap_or_default();
                    self.warnings.push(format!("{key} ({place}) is not a setting that Corelane or Kafka knows{nearest}"));
                }
            }
        }
    }
}

/// Whether Kubernetes put that variable there: it tells every container of the services beside it, and one that is called `kafka` or `kafka-headless` gives `KAFKA_PORT=tcp://10.0.0.1:9092`,
/// `KAFKA_SERVICE_HOST`, `KAFKA_PORT_9092_TCP_ADDR` and their like.
fn tells_of_a_service(name: &str, value: &str) -> bool {
    let name = format!("_{name}_");
    let is_of_port = |protocol: &str| {
        let port = name.split_once("_PORT_").and_then(|(_, rest)| rest.split_once(protocol)).map(|(port, _)| port);
        port.is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
    };
    ["_SERVICE_HOST_", "_SERVICE_PORT_"].iter().any(|part| name.contains(part))
        || name.ends_with("_PORT_") && ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme))
        || ["_TCP_", "_UDP_", "_SCTP_"].into_iter().any(is_of_port)
}

fn is_known(key: &str) -> bool {
    table::find(Scope::Broker, key).is_some()
        || table::find_behind_listener(key).is_some()
        || table::PLUG_IN_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

/// The setting that a variable's name means, as Kafka's images have it: `_` is a dot, `__` an underscore, `___` a dash.
fn setting_of(name: &str) -> String {
    name.to_ascii_lowercase().replace("___", "-").replace("__", "\0").replace('_', ".").replace('\0', "_")
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Argument => formatter.write_str("command line"),
            Origin::Environment { variable } => write!(formatter, "environment {variable}"),
            Origin::File { name, line } => write!(formatter, "{name} line {line}"),
            Origin::Start => formatter.write_str("single-node start"),
            Origin::Follows { from } => write!(formatter, "from {from}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(file: &str, environment: &[(&str, &str)], arguments: &[(&str, &str)]) -> Sources {
        let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        Sources {
            file: Some(File { name: "server.properties".into(), content: file.into() }),
            environment: owned(environment),
            arguments: owned(arguments),
        }
    }

    /// One setting from every source; then the strongest is taken away, one after the other.
    #[test]
    fn stronger_sources_win() {
        let file = "# a comment\nnum.partitions = 1\nnum.partitions=2\n";
        let kafka = ("KAFKA_NUM_PARTITIONS", "3");
        let corelane = ("CORELANE_NUM_PARTITIONS", "4");
        let argument = ("num.partitions", "5");
        for (environment, arguments, value, place) in [
            (&[corelane, kafka][..], &[argument][..], "5", "command line"),
            (&[corelane, kafka], &[], "4", "environment CORELANE_NUM_PARTITIONS"),
            (&[kafka], &[], "3", "environment KAFKA_NUM_PARTITIONS"),
            (&[], &[], "2", "server.properties line 3"),
        ] {
            let gathered = sources(file, environment, arguments).gather();
            let given = &gathered.given["num.partitions"];
            assert_eq!((given.value.as_str(), given.origin.to_string().as_str()), (value, place));
            assert!(gathered.warnings.is_empty(), "{:?}", gathered.warnings);
        }
    }

    #[test]
    fn properties_are_read_as_java_reads_them() {
        let file = "log.dirs = /a/\\\n   b\nbroker.rack: r\\u00e4ck\nsuper.users=k\u{e4}\nauto.create.topics.enable true\n";
        let given = sources(file, &[], &[]).gather().given;
        assert_eq!(given["log.dirs"].value, "/a/b");
        assert_eq!(given["broker.rack"].value, "r\u{e4}ck");
        assert_eq!(given["super.users"].value, "k\u{e4}");
        assert_eq!(given["auto.create.topics.enable"].value, "true");
    }

    #[test]
    fn variables_name_settings_as_in_kafka_images() {
        for (variable, setting) in [
            ("LOG_RETENTION_HOURS", "log.retention.hours"),
            ("LISTENER_NAME_IN_SASL__X_Y", "listener.name.in.sasl_x.y"),
            ("LISTENER_NAME_SCRAM___SHA", "listener.name.scram-sha"),
        ] {
            assert_eq!(setting_of(variable), setting);
        }
        let gathered = sources("", &[("KAFKA_HEAP_OPTS", "-Xmx1g"), ("PATH", "/bin")], &[]).gather();
        assert!(gathered.warnings.is_empty());
    }

    /// Those of a service beside the container are none of ours; a person's `KAFKA_PORT` is a setting that is gone.
    #[test]
    fn variables_of_services_are_passed_over() {
        let services = [
            ("KAFKA_PORT", "tcp://10.0.0.1:9092"),
            ("KAFKA_SERVICE_HOST", "10.0.0.1"),
            ("KAFKA_SERVICE_PORT", "9092"),
            ("KAFKA_SERVICE_PORT_CLIENTS", "9092"),
            ("KAFKA_PORT_9092_TCP", "tcp://10.0.0.1:9092"),
            ("KAFKA_PORT_9092_TCP_PROTO", "tcp"),
            ("KAFKA_HEADLESS_PORT", "udp://10.0.0.2:53"),
            ("KAFKA_HEADLESS_PORT_53_UDP_ADDR", "10.0.0.2"),
            ("CORELANE_PORT", "tcp://10.0.0.3:9092"),
        ];
        let gathered = sources("", &services, &[]).gather();
        assert_eq!((gathered.warnings, gathered.errors), (vec![], vec![]));
        let gathered = sources("", &[("KAFKA_PORT", "9092")], &[]).gather();
        assert!(gathered.errors[0].contains("KAFKA_PORT"), "{:?}", gathered.errors);
        assert_eq!(sources("", &[("KAFKA_SOCKET_LISTEN_BACKLOG_SIZE", "9")], &[]).gather().given["socket.listen.backlog.size"].value, "9");
    }

    #[test]
    fn who_names_a_role_gets_no_start_settings() {
        let bare = Sources::default().gather().given;
        assert_eq!(bare["node.id"].value, "1");
        assert_eq!(bare["broker.id"].value, "1");
        assert_eq!(bare["offsets.topic.replication.factor"].value, "1");
        let kafka = sources("process.roles=broker,controller\nnode.id=7", &[], &[]).gather().given;
        assert_eq!(kafka.keys().collect::<Vec<_>>(), ["broker.id", "node.id", "process.roles"]);
        let directory = sources("log.dir=/data\nbroker.id=3", &[], &[]).gather().given;
        assert_eq!((directory.get("log.dirs"), directory["node.id"].value.as_str()), (None, "3"));
    }

    #[test]
    fn unknown_and_gone_names_are_told() {
        let file = "log.retention.hour=1\nfoo=bar\nzookeeper.connect=z:2181\npassword.encoder.secret=x\nlistener.name.in.ssl.keystore.key=k\n\
                    listener.name.in.scram-sha-256.sasl.jaas.config=x\nrsm.config.chunk=1\n";
        let gathered = sources(file, &[], &[]).gather();
        let warned = |part: &str| gathered.warnings.iter().any(|warning| warning.contains(part));
        assert!(warned("log.retention.hour (server.properties line 1)"));
        assert!(warned("did you mean log.retention.hours?"));
        assert!(gathered.warnings.iter().any(|warning| warning.starts_with("foo ") && !warning.contains("mean")));
        assert!(warned("password.encoder.secret"));
        assert_eq!(gathered.warnings.len(), 3, "{:?}", gathered.warnings);
        assert_eq!(gathered.errors.len(), 1);
        assert!(gathered.errors[0].contains("zookeeper.connect"));
    }
}
