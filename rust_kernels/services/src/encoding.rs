//! The text of a message body: URL-safe base64 without padding.
//!
//! SQS accepts text only, and SNS percent-encodes what is not URL-safe.

use base64::alphabet;
use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, GeneralPurposeConfig};

const TEXT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Returns the length of the text of a body of `bytes` bytes.
pub const fn encoded_len(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

/// Appends the text of `body`.
pub fn encode_into(body: &[u8], text: &mut String) {
    TEXT.encode_string(body, text);
}

/// Returns the body of a message; text that is not base64 is returned as it is, for the receiver to count and drop.
pub fn decode(text: &str) -> Vec<u8> {
    TEXT.decode(text).unwrap_or_else(|_| text.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_every_length_return_from_text_of_the_stated_length() {
        let bytes: Vec<u8> = (0..=255).collect();
        for length in 0..=bytes.len() {
            let mut text = String::new();
            encode_into(&bytes[..length], &mut text);
            assert_eq!(text.len(), encoded_len(length));
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
            assert_eq!(decode(&text), &bytes[..length]);
        }
    }

    #[test]
    fn text_that_is_not_base64_is_returned_as_it_is() {
        for text in ["not base64!", "A", "ü", "AAAAA", "=AAA"] {
            assert_eq!(decode(text), text.as_bytes(), "{text}");
        }
    }
}
