//! SASL: mechanisms, Kerberos, OAUTHBEARER.

use super::*;

pub(super) const ROWS: &[Setting] = settings! {
    /// Largest frame accepted before a client is authenticated.
    "sasl.server.max.receive.size": Int = "524288", Any, ReadOnly, Later;

    /// SASL mechanism among brokers.
    "sasl.mechanism.inter.broker.protocol": String = "GSSAPI", Any, PerBroker, Later;

    /// SASL mechanisms offered; usually set with a listener prefix.
    "sasl.enabled.mechanisms": List = "GSSAPI", Items(MayBeEmpty), PerBroker, Later;

    /// Java class that checks logins, per listener and mechanism.
    "sasl.server.callback.handler.class": Class = null, Any, ReadOnly, Ignored;

    /// Rules that turn a Kerberos principal into a short name.
    "sasl.kerberos.principal.to.local.rules": List = "DEFAULT", Items(MayBeEmpty), PerBroker, Later;

    /// Login module and its options, per listener and mechanism.
    "sasl.jaas.config": Password = null, Any, PerBroker, Later;

    /// Java class for outgoing logins.
    "sasl.client.callback.handler.class": Class = null, Any, ReadOnly, Ignored;

    /// Java login class.
    "sasl.login.class": Class = null, Any, ReadOnly, Ignored;

    /// Java class that the login calls back.
    "sasl.login.callback.handler.class": Class = null, Any, ReadOnly, Ignored;

    /// Kerberos service name of the brokers.
    "sasl.kerberos.service.name": String = null, Any, PerBroker, Later;

    /// Path of `kinit`.
    "sasl.kerberos.kinit.cmd": String = "/usr/bin/kinit", Any, PerBroker, Ignored;

    /// Share of a Kerberos ticket's life after which it is renewed.
    "sasl.kerberos.ticket.renew.window.factor": Double = "0.8", Any, PerBroker, Ignored;

    /// Random share added to the renewal time of a Kerberos ticket.
    "sasl.kerberos.ticket.renew.jitter": Double = "0.05", Any, PerBroker, Ignored;

    /// Shortest time between two Kerberos logins.
    "sasl.kerberos.min.time.before.relogin": Long = "60000", Any, PerBroker, Ignored;

    /// Share of an outgoing login's token life after which it is refreshed.
    "sasl.login.refresh.window.factor": Double = "0.8", Any, PerBroker, Ignored;

    /// Random share added to the refresh time of a token.
    "sasl.login.refresh.window.jitter": Double = "0.05", Any, PerBroker, Ignored;

    /// Shortest time between two refreshes of a token.
    "sasl.login.refresh.min.period.seconds": Short = "60", Any, PerBroker, Ignored;

    /// Time before a token's end that a refresh tries to keep.
    "sasl.login.refresh.buffer.seconds": Short = "300", Any, PerBroker, Ignored;

    /// Time limit of a connect to the identity provider.
    "sasl.login.connect.timeout.ms": Int = null, Any, ReadOnly, Ignored;

    /// Time limit of a read from the identity provider.
    "sasl.login.read.timeout.ms": Int = null, Any, ReadOnly, Ignored;

    /// Longest pause between two tries at the identity provider.
    "sasl.login.retry.backoff.max.ms": Long = "10000", Any, ReadOnly, Ignored;

    /// First pause between two tries at the identity provider.
    "sasl.login.retry.backoff.ms": Long = "100", Any, ReadOnly, Ignored;

    /// Java class that fetches tokens.
    "sasl.oauthbearer.jwt.retriever.class": Class = "org.apache.kafka.common.security.oauthbearer.DefaultJwtRetriever", Any, ReadOnly, Ignored;

    /// Java class that checks tokens.
    "sasl.oauthbearer.jwt.validator.class": Class = "org.apache.kafka.common.security.oauthbearer.DefaultJwtValidator", Any, ReadOnly, Ignored;

    /// Scope asked for by outgoing logins.
    "sasl.oauthbearer.scope": String = null, Any, ReadOnly, Ignored;

    /// Client id of outgoing logins.
    "sasl.oauthbearer.client.credentials.client.id": String = null, Any, ReadOnly, Ignored;

    /// Client secret of outgoing logins.
    "sasl.oauthbearer.client.credentials.client.secret": Password = null, Any, ReadOnly, Ignored;

    /// Signature algorithm of client assertions.
    "sasl.oauthbearer.assertion.algorithm": String = "RS256", OneOfAnyCase(&["ES256", "RS256"]), ReadOnly, Ignored;

    /// Audience of client assertions.
    "sasl.oauthbearer.assertion.claim.aud": String = null, Any, ReadOnly, Ignored;

    /// Life of client assertions.
    "sasl.oauthbearer.assertion.claim.exp.seconds": Int = "300", Between(0, 86_400), ReadOnly, Ignored;

    /// Issuer of client assertions.
    "sasl.oauthbearer.assertion.claim.iss": String = null, Any, ReadOnly, Ignored;

    /// Give client assertions a unique id.
    "sasl.oauthbearer.assertion.claim.jti.include": Boolean = "false", Any, ReadOnly, Ignored;

    /// How far in the past client assertions begin to be valid.
    "sasl.oauthbearer.assertion.claim.nbf.seconds": Int = "60", Between(0, 3600), ReadOnly, Ignored;

    /// Subject of client assertions.
    "sasl.oauthbearer.assertion.claim.sub": String = null, Any, ReadOnly, Ignored;

    /// File with a ready-made client assertion.
    "sasl.oauthbearer.assertion.file": String = null, Any, ReadOnly, Ignored;

    /// File with the key that signs client assertions.
    "sasl.oauthbearer.assertion.private.key.file": String = null, Any, ReadOnly, Ignored;

    /// Passphrase of that key.
    "sasl.oauthbearer.assertion.private.key.passphrase": Password = null, Any, ReadOnly, Ignored;

    /// File with further headers and claims of client assertions.
    "sasl.oauthbearer.assertion.template.file": String = null, Any, ReadOnly, Ignored;

    /// Claim of a token that holds its scope.
    "sasl.oauthbearer.scope.claim.name": String = "scope", Any, ReadOnly, Later;

    /// Claim of a token that becomes the principal.
    "sasl.oauthbearer.sub.claim.name": String = "sub", Any, ReadOnly, Later;

    /// Where outgoing logins get their tokens.
    "sasl.oauthbearer.token.endpoint.url": String = null, Any, ReadOnly, Ignored;

    /// Key set (https or file) with which tokens are checked.
    "sasl.oauthbearer.jwks.endpoint.url": String = null, Any, ReadOnly, Later;

    /// How often the key set is fetched anew.
    "sasl.oauthbearer.jwks.endpoint.refresh.ms": Long = "3600000", Any, ReadOnly, Later;

    /// First pause between two tries at the key set.
    "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms": Long = "100", Any, ReadOnly, Later;

    /// Longest pause between two tries at the key set.
    "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms": Long = "10000", Any, ReadOnly, Later;

    /// Difference between clocks that is forgiven when a token's times are checked.
    "sasl.oauthbearer.clock.skew.seconds": Int = "30", Any, ReadOnly, Later;

    /// Waive the check of a token's audience.
    "sasl.oauthbearer.allow.unverified.audience": Boolean = "false", Any, ReadOnly, Later;

    /// Audiences accepted in a token; with a key set they must be named or the check waived.
    "sasl.oauthbearer.expected.audience": List = "", Items(MayBeEmpty), ReadOnly, Later;

    /// Waive the check of a token's issuer.
    "sasl.oauthbearer.allow.unverified.issuer": Boolean = "false", Any, ReadOnly, Later;

    /// Issuer accepted in a token; with a key set it must be named or the check waived.
    "sasl.oauthbearer.expected.issuer": String = null, Any, ReadOnly, Later;
};
