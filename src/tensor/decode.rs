//! Elements as numbers. Every conversion is exact: each supported type's values are f64 values (64-bit integers
//! beyond 2^53 are rounded to nearest).

use crate::format::DType;
use half::{bf16, f16};

/// Decodes `out.len()` elements from the start of `bytes` (little-endian, as all our formats store them). Bytes that
/// are missing leave their elements as they were; callers pass as many bytes as elements need.
pub fn decode(dtype: DType, bytes: &[u8], out: &mut [f64]) {
    match dtype {
        DType::F64 => each::<8>(bytes, out, f64::from_le_bytes),
        DType::F32 => each::<4>(bytes, out, |b| f64::from(f32::from_le_bytes(b))),
        DType::F16 => each::<2>(bytes, out, |b| f16_to_f64(u16::from_le_bytes(b))),
        DType::BF16 => each::<2>(bytes, out, |b| f64::from(bf16_to_f32(u16::from_le_bytes(b)))),
        DType::F8E4M3 => table(bytes, out, &E4M3),
        DType::F8E5M2 => each::<1>(bytes, out, |[b]| f16_to_f64(u16::from(b) << 8)),
        DType::I64 => each::<8>(bytes, out, |b| i64::from_le_bytes(b) as f64),
        DType::I32 => each::<4>(bytes, out, |b| f64::from(i32::from_le_bytes(b))),
        DType::I16 => each::<2>(bytes, out, |b| f64::from(i16::from_le_bytes(b))),
        DType::I8 => each::<1>(bytes, out, |b| f64::from(i8::from_le_bytes(b))),
        DType::U64 => each::<8>(bytes, out, |b| u64::from_le_bytes(b) as f64),
        DType::U32 => each::<4>(bytes, out, |b| f64::from(u32::from_le_bytes(b))),
        DType::U16 => each::<2>(bytes, out, |b| f64::from(u16::from_le_bytes(b))),
        DType::U8 | DType::Bool => each::<1>(bytes, out, |[b]| f64::from(b)),
        DType::Other(_) => out.fill(f64::NAN), // layers of these types are skipped before any byte is read
    }
}

/// Whether every value of the type is an f32 value, so that [`decode_f32`] loses nothing.
pub fn is_exact_in_f32(dtype: DType) -> bool {
    matches!(
        dtype,
        DType::F32
            | DType::F16
            | DType::BF16
            | DType::F8E4M3
            | DType::F8E5M2
            | DType::I16
            | DType::I8
            | DType::U16
            | DType::U8
            | DType::Bool
    )
}

/// As [`decode`], to f32, for types that [`is_exact_in_f32`].
pub fn decode_f32(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    if dtype == DType::F32 {
        for (value, raw) in out.iter_mut().zip(bytes.chunks_exact(4)) {
            *value = f32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]);
        }
        return;
    }
    let mut wide = [0.0; 512];
    let width = dtype.bytes() as usize;
    for (run, raw) in out.chunks_mut(wide.len()).zip(bytes.chunks(wide.len() * width)) {
        let wide = &mut wide[..run.len()];
        decode(dtype, raw, wide);
        for (value, &w) in run.iter_mut().zip(wide.iter()) {
            *value = w as f32;
        }
    }
}

#[inline]
fn each<const W: usize>(bytes: &[u8], out: &mut [f64], one: impl Fn([u8; W]) -> f64) {
    let (runs, _) = bytes.as_chunks::<W>();
    for (value, raw) in out.iter_mut().zip(runs) {
        *value = one(*raw);
    }
}

fn table(bytes: &[u8], out: &mut [f64], values: &[f64; 256]) {
    for (value, &code) in out.iter_mut().zip(bytes) {
        *value = values[usize::from(code)];
    }
}

fn bf16_to_f32(bits: u16) -> f32 {
    bf16::from_bits(bits).to_f32()
}

fn f16_to_f64(bits: u16) -> f64 {
    f16::from_bits(bits).to_f64()
}

/// FP8 E4M3 as in OCP 8-bit Floating Point Specification 1.0 (no infinities; S.1111.111 is NaN; bias 7). E5M2 needs
/// no table: it is the upper byte of an IEEE half.
static E4M3: [f64; 256] = e4m3_values();

const fn e4m3_values() -> [f64; 256] {
    let mut values = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        let exponent = (code >> 3) & 15;
        let mantissa = (code & 7) as f64;
        let magnitude = if exponent == 15 && code & 7 == 7 {
            f64::NAN
        } else if exponent == 0 {
            mantissa / 512.0 // 2^-6 · mantissa / 8
        } else {
            (1.0 + mantissa / 8.0) * power_of_two(exponent as i32 - 7)
        };
        values[code] = if code & 128 == 0 { magnitude } else { -magnitude };
        code += 1;
    }
    values
}

const fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(dtype: DType, bytes: &[u8]) -> f64 {
        let mut out = [0.0];
        decode(dtype, bytes, &mut out);
        out[0]
    }

    #[test]
    fn every_type_decodes_its_known_values() {
        assert_eq!(one(DType::F64, &(-1.5f64).to_le_bytes()), -1.5);
        assert_eq!(one(DType::F32, &0.1f32.to_le_bytes()), f64::from(0.1f32));
        assert_eq!(one(DType::F16, &0x3c00u16.to_le_bytes()), 1.0);
        assert_eq!(one(DType::F16, &0x0001u16.to_le_bytes()), 2f64.powi(-24), "denormal");
        assert_eq!(one(DType::BF16, &0xc040u16.to_le_bytes()), -3.0);
        assert_eq!(one(DType::BF16, &0x0001u16.to_le_bytes()), 2f64.powi(-133), "denormal");
        assert_eq!(one(DType::I64, &(-7i64).to_le_bytes()), -7.0);
        assert_eq!(one(DType::I32, &i32::MIN.to_le_bytes()), -2f64.powi(31));
        assert_eq!(one(DType::I16, &(-2i16).to_le_bytes()), -2.0);
        assert_eq!(one(DType::I8, &[0x80]), -128.0);
        assert_eq!(one(DType::U64, &u64::MAX.to_le_bytes()), 2f64.powi(64));
        assert_eq!(one(DType::U32, &u32::MAX.to_le_bytes()), 4_294_967_295.0);
        assert_eq!(one(DType::U16, &u16::MAX.to_le_bytes()), 65_535.0);
        assert_eq!(one(DType::U8, &[255]), 255.0);
        assert_eq!(one(DType::Bool, &[1]), 1.0);
    }

    #[test]
    fn f8_special_encodings() {
        assert_eq!(one(DType::F8E4M3, &[0x7e]), 448.0, "largest");
        assert!(one(DType::F8E4M3, &[0x7f]).is_nan());
        assert!(one(DType::F8E4M3, &[0xff]).is_nan());
        assert_eq!(one(DType::F8E4M3, &[0x01]), 2f64.powi(-9), "smallest denormal");
        assert_eq!(one(DType::F8E4M3, &[0x38]), 1.0);
        assert_eq!(one(DType::F8E4M3, &[0xb8]), -1.0);
        assert!(one(DType::F8E4M3, &[0x80]).is_sign_negative(), "minus zero");
        assert_eq!(one(DType::F8E5M2, &[0x7b]), 57_344.0, "largest");
        assert_eq!(one(DType::F8E5M2, &[0x7c]), f64::INFINITY);
        assert!(one(DType::F8E5M2, &[0x7e]).is_nan());
        assert_eq!(one(DType::F8E5M2, &[0x01]), 2f64.powi(-16), "smallest denormal");
    }

    #[test]
    fn f32_path_agrees_with_f64_path_for_all_16_bit_patterns() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for dtype in
            [DType::F16, DType::BF16, DType::I16, DType::U16, DType::F8E4M3, DType::F8E5M2, DType::I8]
        {
            let n = bytes.len() / dtype.bytes() as usize;
            let (mut wide, mut narrow) = (vec![0.0; n], vec![0.0f32; n]);
            decode(dtype, &bytes, &mut wide);
            decode_f32(dtype, &bytes, &mut narrow);
            assert!(is_exact_in_f32(dtype));
            for (w, s) in wide.iter().zip(&narrow) {
                assert!(*w == f64::from(*s) || (w.is_nan() && s.is_nan()), "{dtype:?}: {w} {s}");
            }
        }
    }
}
