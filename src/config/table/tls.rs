//! TLS.

use super::*;

pub(super) const ROWS: &[Setting] = settings! {
    /// Whether a client must show a certificate: `none`, `requested`, `required`.
    "ssl.client.auth": String = "none", OneOf(&["required", "requested", "none"]), PerBroker, Later;

    /// Rules that turn a certificate's distinguished name into a principal.
    "ssl.principal.mapping.rules": String = "DEFAULT", Any, ReadOnly, Later;

    /// Accept another subject when a key store is loaded anew.
    "ssl.allow.dn.changes": Boolean = "false", Any, ReadOnly, Later;

    /// Accept other alternative names when a key store is loaded anew.
    "ssl.allow.san.changes": Boolean = "false", Any, ReadOnly, Later;

    /// Name of the JVM's TLS context.
    "ssl.protocol": String = "TLSv1.3", Any, PerBroker, Ignored;

    /// Security provider of the JVM.
    "ssl.provider": String = null, Any, PerBroker, Ignored;

    /// TLS versions offered.
    "ssl.enabled.protocols": List = "TLSv1.2,TLSv1.3", Items(MayBeEmpty), PerBroker, Later;

    /// Type of the key store: JKS, PKCS12 or PEM.
    "ssl.keystore.type": String = "JKS", Any, PerBroker, Later;

    /// File with the key store.
    "ssl.keystore.location": String = null, Any, PerBroker, Later;

    /// Password of the key store.
    "ssl.keystore.password": Password = null, Any, PerBroker, Later;

    /// Password of the private key.
    "ssl.key.password": Password = null, Any, PerBroker, Later;

    /// Private key as PEM text.
    "ssl.keystore.key": Password = null, Any, PerBroker, Later;

    /// Certificate chain as PEM text.
    "ssl.keystore.certificate.chain": Password = null, Any, PerBroker, Later;

    /// Type of the trust store: JKS, PKCS12 or PEM.
    "ssl.truststore.type": String = "JKS", Any, PerBroker, Later;

    /// File with the trust store.
    "ssl.truststore.location": String = null, Any, PerBroker, Later;

    /// Password of the trust store.
    "ssl.truststore.password": Password = null, Any, PerBroker, Later;

    /// Trusted certificates as PEM text.
    "ssl.truststore.certificates": Password = null, Any, PerBroker, Later;

    /// Key manager of the JVM.
    "ssl.keymanager.algorithm": String = "SunX509", Any, PerBroker, Ignored;

    /// Trust manager of the JVM.
    "ssl.trustmanager.algorithm": String = "PKIX", Any, PerBroker, Ignored;

    /// Host name check on outgoing TLS; empty switches it off.
    "ssl.endpoint.identification.algorithm": String = "https", Any, PerBroker, Later;

    /// Random source of the JVM.
    "ssl.secure.random.implementation": String = null, Any, PerBroker, Ignored;

    /// Cipher suites offered; empty is the library's choice.
    "ssl.cipher.suites": List = "", Items(MayBeEmpty), PerBroker, Later;

    /// Java class that makes TLS engines. It cannot be loaded here, so setting it is refused.
    "ssl.engine.factory.class": Class = null, Any, PerBroker, Refused;
};
