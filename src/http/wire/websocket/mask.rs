//! The masking of payloads (RFC 6455 5.3).

/// So many bytes are masked at once.
const BLOCK: usize = 16;

/// Appends `payload`, masked or unmasked with the key.
pub fn append(out: &mut Vec<u8>, payload: &[u8], key: [u8; 4]) {
    let from = out.len();
    out.extend_from_slice(payload);
    if key != [0; 4] {
        apply(out.get_mut(from..).unwrap_or_default(), key);
    }
}

/// Masks or unmasks a payload from its first byte on.
pub fn apply(payload: &mut [u8], key: [u8; 4]) {
    let word = u32::from_ne_bytes(key);
    let wide = u128::from(word) * 0x0000_0001_0000_0001_0000_0001_0000_0001;
    let (blocks, rest) = payload.as_chunks_mut::<BLOCK>();
    for block in blocks {
        *block = (u128::from_ne_bytes(*block) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_meets_its_byte_of_the_key() {
        let key = [1, 0x80, 0xff, 0x37];
        for size in 0..70 {
            let payload: Vec<u8> = (0..size).map(|i| (i * 37) as u8).collect();
            let mut masked = b"before".to_vec();
            append(&mut masked, &payload, key);
            let expected: Vec<u8> =
                payload.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect();
            assert_eq!(masked, [&b"before"[..], &expected].concat());
            apply(&mut masked[6..], key);
            assert_eq!(masked[6..], payload);
        }
    }

    #[test]
    fn a_key_of_zeros_changes_nothing() {
        let mut out = Vec::new();
        append(&mut out, b"payload", [0; 4]);
        assert_eq!(out, b"payload");
    }
}
