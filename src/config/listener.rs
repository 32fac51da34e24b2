//! Listeners: `listeners`, `advertised.listeners` and `listener.security.protocol.map` together, as typed endpoints.
//!
//! A single node is its own controller, so its controller listeners are accepted as they stand in a file for Kafka, and bound by nobody.

use super::value::host_and_port;

/// One entry of `listeners`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// In capitals.
    pub name: String,
    /// Empty: every interface.
    pub host: String,
    /// 0: a free port, chosen when it is bound.
    pub port: u16,
    pub protocol: SecurityProtocol,
    /// Among `controller.listener.names`.
    pub controller: bool,
    /// What clients are told; where nothing is, the address that they dialled.
    pub advertised: Option<Advertised>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    pub host: String,
    /// 0: the port that was bound.
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityProtocol {
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

/// The settings that listeners are made of.
pub struct Parts<'a> {
    pub listeners: &'a [String],
    pub advertised: Option<&'a [String]>,
    pub protocol_map: &'a str,
    /// Whether somebody gave the map: only the built-in one lets controller listeners be plain by themselves.
    pub protocol_map_given: bool,
    pub controller_names: &'a [String],
}

struct Endpoint {
    name: String,
    host: String,
    port: u16,
}

/// All listeners, or every rule that they break.
pub fn listeners(parts: &Parts) -> Result<Vec<Listener>, Vec<String>> {
    let mut errors = Vec::new();
    let bound = endpoints("listeners", parts.listeners, &mut errors);
    let advertised = endpoints("advertised.listeners", parts.advertised.unwrap_or_default(), &mut errors);
    let protocols = protocol_map(parts, &mut errors);
    check_bound(&bound, &mut errors);
    check_advertised(&bound, &advertised, &mut errors);
    let controllers: Vec<String> = parts.controller_names.iter().map(|name| name.to_uppercase()).collect();
    let mut listeners = Vec::new();
    for endpoint in bound {
        let protocol = protocols.iter().find(|(name, _)| *name == endpoint.name).map(|(_, protocol)| *protocol);
        let Some(protocol) = protocol else {
            errors.push(format!(
                "listeners: no security protocol defined for listener {}; name it in listener.security.protocol.map",
                endpoint.name
            ));
            continue;
        };
        let told = advertised.iter().find(|told| told.name == endpoint.name);
        listeners.push(Listener {
            controller: controllers.contains(&endpoint.name),
            advertised: told.map(|told| Advertised { host: told.host.clone(), port: told.port }),
            name: endpoint.name,
            host: endpoint.host,
            port: endpoint.port,
            protocol,
        });
    }
    if errors.is_empty() { Ok(listeners) } else { Err(errors) }
}

fn endpoints(setting: &str, items: &[String], errors: &mut Vec<String>) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for item in items {
        match endpoint(item) {
            Some(endpoint) => endpoints.push(endpoint),
            None => errors.push(format!("{setting}: unable to parse {item} as NAME://host:port")),
        }
    }
    endpoints
}

fn endpoint(item: &str) -> Option<Endpoint> {
    let (name, address) = item.split_once("://")?;
    let (host, port) = match address.strip_prefix(':') {
        Some(port) => ("", port.parse().ok()?),
        None => host_and_port(address)?,
    };
    (!name.is_empty()).then(|| Endpoint { name: name.to_uppercase(), host: host.into(), port })
}

fn protocol_map(parts: &Parts, errors: &mut Vec<String>) -> Vec<(String, SecurityProtocol)> {
    let mut protocols = Vec::new();
    for pair in parts.protocol_map.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let parsed = pair.split_once(':').map(|(name, protocol)| (name.trim().to_uppercase(), protocol.trim()));
        match parsed.and_then(|(name, protocol)| Some((name, SecurityProtocol::parse(protocol)?))) {
            Some(pair) => protocols.push(pair),
            None => errors.push(format!("listener.security.protocol.map: {pair} is not NAME:PROTOCOL")),
        }
    }
    // As Kafka has it: who gave no map and secures nothing may leave the controllers' listeners out of it.
    let secured = |name: &str| SecurityProtocol::parse(name).is_some_and(|protocol| protocol != SecurityProtocol::Plaintext);
    let names = parts.listeners.iter().filter_map(|item| item.split_once("://")).map(|(name, _)| name);
    let any_secured = names.chain(parts.controller_names.iter().map(String::as_str)).any(secured);
    if !parts.protocol_map_given && !any_secured {
        for name in parts.controller_names.iter().map(|name| name.to_uppercase()) {
            if !protocols.iter().any(|(known, _)| *known == name) {
                protocols.push((name, SecurityProtocol::Plaintext));
            }
        }
    }
    protocols
}

fn check_bound(bound: &[Endpoint], errors: &mut Vec<String>) {
    for (index, endpoint) in bound.iter().enumerate() {
        for other in &bound[..index] {
            if other.name == endpoint.name {
                errors.push(format!("listeners: each listener must have a different name, {} is there twice", endpoint.name));
            }
            let two_families = is_ipv6(&endpoint.host) != is_ipv6(&other.host);
            if other.port == endpoint.port && endpoint.port != 0 && !two_families {
                errors.push(format!("listeners: each listener must have a different port, {} is there twice", endpoint.port));
            }
        }
    }
}

fn check_advertised(bound: &[Endpoint], advertised: &[Endpoint], errors: &mut Vec<String>) {
    for (index, told) in advertised.iter().enumerate() {
        if told.host == "0.0.0.0" || told.host == "::" {
            errors.push(format!(
                "advertised.listeners: {} cannot be advertised as {}, which no client can reach; name an address that they can",
                told.name, told.host
            ));
        }
        if told.host.is_empty() {
            errors.push(format!("advertised.listeners: {} needs a host", told.name));
        }
        if !bound.iter().any(|endpoint| endpoint.name == told.name) {
            errors.push(format!("advertised.listeners: {} is not among the listeners", told.name));
        }
        if advertised[..index].iter().any(|other| other.name == told.name) {
            errors.push(format!("advertised.listeners: each listener must have a different name, {} is there twice", told.name));
        }
    }
}

fn is_ipv6(host: &str) -> bool {
    host.contains(':')
}

impl SecurityProtocol {
    fn parse(text: &str) -> Option<SecurityProtocol> {
        match text.to_uppercase().as_str() {
            "PLAINTEXT" => Some(SecurityProtocol::Plaintext),
            "SSL" => Some(SecurityProtocol::Ssl),
            "SASL_PLAINTEXT" => Some(SecurityProtocol::SaslPlaintext),
            "SASL_SSL" => Some(SecurityProtocol::SaslSsl),
            _ => None,
        }
    }

    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            SecurityProtocol::Plaintext => "PLAINTEXT",
            SecurityProtocol::Ssl => "SSL",
            SecurityProtocol::SaslPlaintext => "SASL_PLAINTEXT",
            SecurityProtocol::SaslSsl => "SASL_SSL",
        }
    }

    /// Kafka's code, as in broker registrations and DescribeCluster.
    pub fn code(self) -> i16 {
        match self {
            SecurityProtocol::Plaintext => 0,
            SecurityProtocol::Ssl => 1,
            SecurityProtocol::SaslPlaintext => 2,
            SecurityProtocol::SaslSsl => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT_MAP: &str = "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT";

    fn list(text: &str) -> Vec<String> {
        text.split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect()
    }

    fn parse(bound: &str, advertised: Option<&str>, map: Option<&str>, controllers: &str) -> Result<Vec<Listener>, Vec<String>> {
        let advertised = advertised.map(list);
        listeners(&Parts {
            listeners: &list(bound),
            advertised: advertised.as_deref(),
            protocol_map: map.unwrap_or(DEFAULT_MAP),
            protocol_map_given: map.is_some(),
            controller_names: &list(controllers),
        })
    }

    /// The listeners of the file that Kafka ships, and every form of address.
    #[test]
    fn every_form_of_listener_is_read() {
        let found = parse("PLAINTEXT://:9092,CONTROLLER://localhost:9093", Some("PLAINTEXT://example.org:19092"), None, "CONTROLLER");
        let found = found.unwrap();
        assert_eq!((found[0].host.as_str(), found[0].port, found[0].controller), ("", 9092, false));
        assert_eq!(found[0].advertised, Some(Advertised { host: "example.org".into(), port: 19092 }));
        assert_eq!((found[1].name.as_str(), found[1].protocol, found[1].controller), ("CONTROLLER", SecurityProtocol::Plaintext, true));
        let found = parse("in://[::1]:0,Out://0.0.0.0:0,PLAINTEXT://1.2.3.4:5", None, Some("IN:SSL, out:PLAINTEXT,PLAINTEXT:SASL_SSL"), "");
        let found = found.unwrap();
        let seen: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.host.as_str(), one.port, one.protocol.name())).collect();
        assert_eq!(seen, [("IN", "::1", 0, "SSL"), ("OUT", "0.0.0.0", 0, "PLAINTEXT"), ("PLAINTEXT", "1.2.3.4", 5, "SASL_SSL")]);
        assert!(parse("A://0.0.0.0:1,B://[::]:1", None, Some("A:PLAINTEXT,B:PLAINTEXT"), "").is_ok());
    }

    #[test]
    fn what_kafka_refuses_is_refused() {
        for (bound, advertised, map, rule) in [
            ("PLAINTEXT//:9092", None, None, "unable to parse PLAINTEXT//:9092"),
            ("PLAINTEXT://:99999", None, None, "unable to parse"),
            ("FOO://:9092", None, None, "no security protocol defined for listener FOO"),
            ("PLAINTEXT://:1,plaintext://:2", None, None, "different name"),
            ("PLAINTEXT://:1,SSL://:1", None, None, "different port"),
            ("PLAINTEXT://:1", Some("PLAINTEXT://0.0.0.0:1"), None, "cannot be advertised as 0.0.0.0"),
            ("PLAINTEXT://:1", Some("SSL://a:1"), None, "SSL is not among the listeners"),
            ("PLAINTEXT://:1", None, Some("PLAINTEXT"), "not NAME:PROTOCOL"),
            ("SSL://:1,CONTROLLER://:2", None, None, "no security protocol defined for listener CONTROLLER"),
        ] {
            let errors = parse(bound, advertised, map, "CONTROLLER").unwrap_err();
            assert!(errors.iter().any(|error| error.contains(rule)), "{bound}: {errors:?}");
        }
    }
}
