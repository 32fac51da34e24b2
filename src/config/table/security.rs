//! Principals, re-authentication and delegation tokens.

use super::*;

pub(super) const ROWS: &[Setting] = settings! {
    /// Session length after which a SASL client must authenticate again; 0 is never.
    "connections.max.reauth.ms": Long = "0", Any, ReadOnly, Later;

    /// Security providers of the JVM.
    "security.providers": String = null, Any, ReadOnly, Ignored;

    /// Java class that makes principals. No other than the default can be offered, so another is refused.
    "principal.builder.class": Class = "org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder", Any, PerBroker, Refused;

    /// Secret that signs delegation tokens. Not built yet, so setting it is refused.
    "delegation.token.secret.key": Password = null, Any, ReadOnly, Refused;

    /// Longest life of a delegation token, renewals included.
    "delegation.token.max.lifetime.ms": Long = "604800000", AtLeast(1), ReadOnly, Later;

    /// Life of a delegation token until it must be renewed.
    "delegation.token.expiry.time.ms": Long = "86400000", AtLeast(1), ReadOnly, Later;

    /// How often expired delegation tokens are removed.
    "delegation.token.expiry.check.interval.ms": Long = "3600000", AtLeast(1), ReadOnly, Later;
};
