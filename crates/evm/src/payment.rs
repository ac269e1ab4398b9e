//! Holds: what a wallet reads to pay: a URI (EIP-681) and its picture, a QR code.

use std::fmt::Write as _;

use qrcode::{Color, EcLevel, QrCode};

use crate::address::Address;

/// What a QR code of good size for a screen holds; an EIP-681 URI has some 150.
const MAX_QR_BYTES: usize = 512;
/// Light modules around the code (ISO/IEC 18004).
const QUIET_ZONE: usize = 4;

/// A text cannot be made a QR code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a QR code is made of 1 to 512 bytes of text")]
pub struct QrError;

/// Asks a wallet to send a token (EIP-681). The amount is in the token's smallest units; without one the payer chooses.
pub fn payment_uri(chain_id: u64, token: &Address, to: &Address, amount: Option<u128>) -> String {
    let mut uri = format!("ethereum:{token}@{chain_id}/transfer?address={to}");
    if let Some(amount) = amount {
        // Writing to a String cannot fail.
        let _ = write!(uri, "&uint256={amount}");
    }
    uri
}

/// A QR code as a picture that scales: an SVG of one path, without script, style or reference.
pub fn qr_svg(text: &str) -> Result<String, QrError> {
    if text.is_empty() || text.len() > MAX_QR_BYTES {
        return Err(QrError);
    }
    let code = QrCode::with_error_correction_level(text, EcLevel::M).map_err(|_| QrError)?;
    let width = code.width();
    let side = width + 2 * QUIET_ZONE;
    let mut path = String::new();
    for (row, modules) in code.to_colors().chunks(width).enumerate() {
        let mut column = 0;
        for run in modules.chunk_by(|one, next| one == next) {
            if run.first() == Some(&Color::Dark) {
                let _ = write!(path, "M{} {}h{}v1h-{}z", column + QUIET_ZONE, row + QUIET_ZONE, run.len(), run.len());
            }
            column += run.len();
        }
    }
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\">\
         <path fill=\"#fff\" d=\"M0 0h{side}v{side}H0z\"/><path fill=\"#000\" d=\"{path}\"/></svg>"
    ))
}
