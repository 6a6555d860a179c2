//! The text of a message body: URL-safe base64 without padding.
//!
//! SQS accepts text only, and SNS percent-encodes what is not URL-safe.

use base64_simd::URL_SAFE_NO_PAD;

/// Returns the length of the text of a body of `bytes` bytes.
pub const fn encoded_len(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

/// Appends the text of `body`.
pub fn encode_into(body: &[u8], text: &mut String) {
    URL_SAFE_NO_PAD.encode_append(body, text);
}

/// Returns the body of a message; text that is not base64 is returned as it is, for the receiver to count and drop.
pub fn decode(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode_to_vec(text).unwrap_or_else(|_| text.as_bytes().to_vec())
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
