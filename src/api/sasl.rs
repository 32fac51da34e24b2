//! SASL requests on a listener without SASL: out of place, as Kafka says there (KafkaApis.handleSaslHandshakeRequest). Listeners with SASL will meet them before any other request.

use super::RequestContext;
use crate::wire::ErrorCode;
use crate::wire::messages::{SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse};

/// No mechanism is enabled here.
pub async fn handle_sasl_handshake(_context: &RequestContext, _request: SaslHandshakeRequest, _version: i16) -> SaslHandshakeResponse {
    SaslHandshakeResponse { error_code: ErrorCode::IllegalSaslState.code(), ..Default::default() }
}

/// Nobody has shaken hands.
pub async fn handle_sasl_authenticate(
    _context: &RequestContext,
    _request: SaslAuthenticateRequest,
    _version: i16,
) -> SaslAuthenticateResponse {
    SaslAuthenticateResponse {
        error_code: ErrorCode::IllegalSaslState.code(),
        error_message: Some("SaslAuthenticate request received after successful authentication".into()),
        ..Default::default()
    }
}
