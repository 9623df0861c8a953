//! Where records lie in the one tree: a byte for the kind, then a key.
//!
//! | first byte | rest | what |
//! |---|---|---|
//! | a space's | the caller's key | a value, or the head of a long one |
//! | `C` | generation u64, index u32 | a chunk of a long value |
//! | `P` | generation u64 | chunks are being written, and no head names them yet; the value is their count |
//! | `U` | a result's key | when the result was last used, if later than it was written |
//! | `X` | one of the first kind | a corrupt record that was set aside when the store was opened |
//! | `S` | | the sequence number of the last group that was applied, and how many records there were then |
//! | `V` | | the version of this table |

use super::records::Space;

/// The version of the table above.
pub(super) const LAYOUT: u32 = 1;
pub(super) const LAYOUT_KEY: &[u8] = b"V";
pub(super) const SEQUENCE_KEY: &[u8] = b"S";
pub(super) const CHUNK: u8 = b'C';
pub(super) const PENDING: u8 = b'P';
pub(super) const USED: u8 = b'U';
pub(super) const ASIDE: u8 = b'X';

pub(super) fn record(space: Space, key: &[u8]) -> Vec<u8> {
    prefixed(space.prefix(), key)
}

pub(super) fn chunk(generation: u64, index: u32) -> Vec<u8> {
    let mut out = prefixed(CHUNK, &generation.to_be_bytes());
    out.extend_from_slice(&index.to_be_bytes());
    out
}

pub(super) fn pending(generation: u64) -> Vec<u8> {
    prefixed(PENDING, &generation.to_be_bytes())
}

pub(super) fn used(key: &[u8]) -> Vec<u8> {
    prefixed(USED, key)
}

pub(super) fn aside(raw: &[u8]) -> Vec<u8> {
    prefixed(ASIDE, raw)
}

/// The number behind the first byte of a chunk's or a pending mark's key.
pub(super) fn generation(raw: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(raw.get(1..9)?.try_into().ok()?))
}

/// The space and key of a record's raw key.
pub(super) fn split(raw: &[u8]) -> Option<(Space, &[u8])> {
    let (first, key) = raw.split_first()?;
    Some((Space::of_prefix(*first)?, key))
}

/// The least key above all that begin with `prefix`; `None` if there is none.
pub(super) fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

fn prefixed(first: u8, rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(13.max(1 + rest.len()));
    out.push(first);
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_do_not_collide() {
        let mut firsts: Vec<u8> = Space::ALL.iter().map(|space| space.prefix()).collect();
        firsts.extend([CHUNK, PENDING, USED, ASIDE, LAYOUT_KEY[0], SEQUENCE_KEY[0]]);
        let count = firsts.len();
        firsts.sort_unstable();
        firsts.dedup();
        assert_eq!(firsts.len(), count);
    }

    #[test]
    fn the_end_of_a_prefix_is_above_all_of_it() {
        assert_eq!(end_of(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(end_of(&[1, 255, 255]), Some(vec![2]));
        assert_eq!(end_of(&[255]), None);
    }
}
