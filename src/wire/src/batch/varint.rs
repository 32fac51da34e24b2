//! Zig-zag varints: the integers inside a record. Seven bits a byte, lowest first, the sign in the lowest bit.

/// Why there is no integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VarintError {
    /// The bytes end before it does.
    Truncated,
    /// More bits than the type has.
    TooLong,
}

/// A 32-bit integer at the front of `bytes`, and how many bytes it takes (1 to 5).
pub(crate) fn read_varint(bytes: &[u8]) -> Result<(i32, usize), VarintError> {
    let (value, length) = read_unsigned(bytes, 5)?;
    let value = u32::try_from(value).map_err(|_| VarintError::TooLong)?;
    Ok(((value >> 1) as i32 ^ -((value & 1) as i32), length))
}

/// A 64-bit integer at the front of `bytes`, and how many bytes it takes (1 to 10).
pub(crate) fn read_varlong(bytes: &[u8]) -> Result<(i64, usize), VarintError> {
    let (value, length) = read_unsigned(bytes, 10)?;
    Ok(((value >> 1) as i64 ^ -((value & 1) as i64), length))
}

pub(crate) fn write_varint(value: i32, out: &mut Vec<u8>) {
    write_varlong(i64::from(value), out);
}

pub(crate) fn write_varlong(value: i64, out: &mut Vec<u8>) {
    let mut rest = (value << 1) as u64 ^ (value >> 63) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Bytes that [`write_varlong`] writes.
pub(crate) fn varlong_bytes(value: i64) -> usize {
    let unsigned = (value << 1) as u64 ^ (value >> 63) as u64;
    (64 - (unsigned | 1).leading_zeros() as usize).div_ceil(7)
}

fn read_unsigned(bytes: &[u8], length_max: usize) -> Result<(u64, usize), VarintError> {
    // Most integers in a record are small: lengths, deltas.
    if let Some(&first) = bytes.first()
        && first < 0x80
    {
        return Ok((u64::from(first), 1));
    }
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().take(length_max).enumerate() {
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * index as u32;
        if shift == 63 && bits > 1 {
            return Err(VarintError::TooLong);
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok((value, index + 1));
        }
    }
    Err(if bytes.len() < length_max { VarintError::Truncated } else { VarintError::TooLong })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every power of two, its neighbours and their negatives come back, in as many bytes as announced.
    #[test]
    fn integers_come_back() {
        for shift in 0..64 {
            for near in [-1i64, 0, 1] {
                for value in [(1i64 << shift).wrapping_add(near), (1i64 << shift).wrapping_add(near).wrapping_neg()] {
                    let mut bytes = Vec::new();
                    write_varlong(value, &mut bytes);
                    assert_eq!(bytes.len(), varlong_bytes(value));
                    assert_eq!(read_varlong(&bytes), Ok((value, bytes.len())));
                    assert_eq!(read_varlong(&bytes[..bytes.len() - 1]), Err(VarintError::Truncated));
                    let as_int = i32::try_from(value).map(|value| (value, bytes.len())).map_err(|_| VarintError::TooLong);
                    assert_eq!(read_varint(&bytes), as_int);
                }
            }
        }
    }

    #[test]
    fn too_many_bits_are_refused() {
        assert_eq!(read_varint(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok((i32::MIN, 5)));
        assert_eq!(read_varint(&[0xff, 0xff, 0xff, 0xff, 0x1f]), Err(VarintError::TooLong));
        assert_eq!(read_varint(&[0x80; 6]), Err(VarintError::TooLong));
        assert_eq!(read_varlong(&[0x80; 11]), Err(VarintError::TooLong));
        let mut bytes = [0xff; 10];
        bytes[9] = 0x02;
        assert_eq!(read_varlong(&bytes), Err(VarintError::TooLong));
    }
}
