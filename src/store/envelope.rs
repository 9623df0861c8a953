//! The envelope of every stored value: what it is, how long, when it was written, and a checksum over it and its key.
//!
//! `"SPXR" | version u8 | kind u8 | written u64 | length u32 | checksum [16] | payload`, numbers big-endian. The
//! checksum is the beginning of BLAKE3 over the key, the fields before it and the payload; with the key in it, a
//! value that turns up under another key is not taken for that key's.

/// What a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The value itself.
    Inline,
    /// Where the chunks of the value are: see [`Head`].
    Head,
    /// A piece of a value.
    Chunk,
    /// A note of the store's own.
    Note,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Inline => 0,
            Self::Head => 1,
            Self::Chunk => 2,
            Self::Note => 3,
        }
    }

    fn of(byte: u8) -> Option<Self> {
        [Self::Inline, Self::Head, Self::Chunk, Self::Note].into_iter().find(|kind| kind.byte() == byte)
    }
}

const MAGIC: &[u8; 4] = b"SPXR";
const VERSION: u8 = 1;
const CHECKED: usize = 4 + 1 + 1 + 8 + 4;
/// Bytes before the payload.
pub(super) const HEADER: usize = CHECKED + 16;
/// The longest stored value. sled moves large *nodes* to files of their own, which grow in number and are synced one
/// by one; with values of 4 KiB it never did.
pub(super) const MAX_STORED: usize = 4096;
/// The longest payload.
pub(super) const MAX_PAYLOAD: usize = MAX_STORED - HEADER;

/// An envelope that was opened and found sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opened<'a> {
    pub(super) kind: Kind,
    /// Seconds since 1970.
    pub(super) written: u64,
    pub(super) payload: &'a [u8],
}

fn checksum(key: &[u8], fields: &[u8], payload: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_be_bytes()).update(key).update(fields).update(payload);
    let mut short = [0; 16];
    hasher.finalize_xof().fill(&mut short);
    short
}

/// Wraps a payload of at most [`MAX_PAYLOAD`] bytes, to be stored under `key`.
pub(super) fn seal(key: &[u8], kind: Kind, written: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + payload.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[VERSION, kind.byte()]);
    out.extend_from_slice(&written.to_be_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    let sum = checksum(key, &out, payload);
    out.extend_from_slice(&sum);
    out.extend_from_slice(payload);
    out
}

/// Opens what is stored under `key`, or says what is wrong with it.
pub(super) fn open<'a>(key: &[u8], stored: &'a [u8]) -> std::result::Result<Opened<'a>, String> {
    let short = || format!("{} bytes are too few for an envelope", stored.len());
    let (fields, rest) = stored.split_at_checked(CHECKED).ok_or_else(short)?;
    let (sum, payload) = rest.split_at_checked(16).ok_or_else(short)?;
    let mut reader = Reader(fields);
    if reader.take(4) != Some(MAGIC) {
        return Err("the envelope does not begin with its magic".to_owned());
    }
    let version = reader.byte().ok_or_else(short)?;
    if version != VERSION {
        return Err(format!("the envelope has version {version}, this program reads version {VERSION}"));
    }
    let kind = reader.byte().and_then(Kind::of).ok_or("the envelope holds an unknown kind of payload")?;
    let written = reader.u64().ok_or_else(short)?;
    let length = reader.u32().ok_or_else(short)? as usize;
    if length != payload.len() {
        return Err(format!("the envelope promises {length} bytes and holds {}", payload.len()));
    }
    if sum != checksum(key, fields, payload) {
        return Err("the checksum is wrong".to_owned());
    }
    Ok(Opened { kind, written, payload })
}

/// The record of a value that is longer than [`MAX_PAYLOAD`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Which chunks: each writing of a long value has a number of its own.
    pub(super) generation: u64,
    /// How many chunks.
    pub(super) count: u32,
    /// Bytes of the value.
    pub(super) length: u64,
    /// BLAKE3 of the value.
    pub(super) hash: [u8; 32],
}

impl Head {
    pub(super) fn of(generation: u64, value: &[u8]) -> Self {
        Self {
            generation,
            count: value.len().div_ceil(MAX_PAYLOAD) as u32,
            length: value.len() as u64,
            hash: *blake3::hash(value).as_bytes(),
        }
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(52);
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(&self.length.to_be_bytes());
        out.extend_from_slice(&self.hash);
        out
    }

    pub(super) fn parse(payload: &[u8]) -> std::result::Result<Self, String> {
        let mut reader = Reader(payload);
        let parsed = (|| {
            let (generation, count, length) = (reader.u64()?, reader.u32()?, reader.u64()?);
            let hash = reader.take(32)?.try_into().ok()?;
            reader.0.is_empty().then_some(Self { generation, count, length, hash })
        })();
        let head = parsed.ok_or_else(|| format!("the head has {} bytes instead of 52", payload.len()))?;
        if head.length.div_ceil(MAX_PAYLOAD as u64) != u64::from(head.count) {
            return Err(format!("the head promises {} bytes in {} chunks", head.length, head.count));
        }
        Ok(head)
    }
}

/// Reads big-endian numbers from the front.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(front)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_opened() {
        let sealed = seal(b"rkey", Kind::Inline, 17, b"value");
        let opened = open(b"rkey", &sealed).unwrap();
        assert_eq!((opened.kind, opened.written, opened.payload), (Kind::Inline, 17, &b"value"[..]));
        assert_eq!(seal(b"k", Kind::Chunk, 0, &[0; MAX_PAYLOAD]).len(), MAX_STORED);
    }

    #[test]
    fn every_flipped_byte_every_cut_and_a_foreign_key_are_seen() {
        let sealed = seal(b"rkey", Kind::Inline, 17, b"value");
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 0x10;
            assert!(open(b"rkey", &flipped).is_err(), "byte {at}");
            assert!(open(b"rkey", &sealed[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(open(b"rkex", &sealed), Err("the checksum is wrong".to_owned()));
        let mut longer = sealed.clone();
        longer.push(0);
        assert_eq!(open(b"rkey", &longer), Err("the envelope promises 5 bytes and holds 6".to_owned()));
    }

    #[test]
    fn a_head_is_read_back_and_checked() {
        let head = Head::of(9, &[1; 10_000]);
        assert_eq!(head.count, 3);
        assert_eq!(Head::parse(&head.to_bytes()), Ok(head));
        assert!(Head::parse(&head.to_bytes()[1..]).is_err());
        let lying = Head { count: 2, ..head };
        assert_eq!(
            Head::parse(&lying.to_bytes()),
            Err("the head promises 10000 bytes in 2 chunks".to_owned())
        );
    }
}
