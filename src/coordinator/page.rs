//! Page sizes and page tokens. A token holds the query that it belongs to, so that it cannot be used for another.

use crate::{Error, Result};

/// How many entries a page gets.
pub(super) fn size(asked: i32, default: usize) -> Result<usize> {
    const MOST: usize = 1000;
    match usize::try_from(asked) {
        Err(_) => Err(Error::invalid(format!("is {asked}; it is 0 or more")).in_field("page_size")),
        Ok(0) => Ok(default),
        Ok(asked) => Ok(asked.min(MOST)),
    }
}

/// The token for the entries after `last`.
pub(super) fn token(query: &[&str], last: &[u8]) -> String {
    let mut bytes = digest(query).to_vec();
    bytes.extend_from_slice(last);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The last entry of the page before; `None` for the first page.
pub(super) fn last(query: &[&str], token: &str) -> Result<Option<Vec<u8>>> {
    if token.is_empty() {
        return Ok(None);
    }
    let wrong = || Error::invalid("is not one that this query gave").in_field("page_token");
    if !token.is_ascii() || !token.len().is_multiple_of(2) || token.len() > 2048 {
        return Err(wrong());
    }
    let bytes: Option<Vec<u8>> =
        (0..token.len()).step_by(2).map(|at| u8::from_str_radix(token.get(at..at + 2)?, 16).ok()).collect();
    let bytes = bytes.ok_or_else(wrong)?;
    match bytes.split_first_chunk::<8>() {
        Some((of, last)) if *of == digest(query) => Ok(Some(last.to_vec())),
        _ => Err(wrong()),
    }
}

fn digest(query: &[&str]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    for part in query {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let mut short = [0; 8];
    hasher.finalize_xof().fill(&mut short);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_belongs_to_its_query() {
        let token = token(&["jobs", "x"], b"last");
        assert_eq!(last(&["jobs", "x"], &token).unwrap().as_deref(), Some(&b"last"[..]));
        assert_eq!(last(&["jobs", "x"], "").unwrap(), None);
        for (query, token) in [
            (["jobs", "y"], token.as_str()),
            (["jobsx", ""], token.as_str()),
            (["jobs", "x"], "00"),
            (["jobs", "x"], "0"),
            (["jobs", "x"], "zz"),
            (["jobs", "x"], "é"),
        ] {
            let error = last(&query, token).unwrap_err();
            assert_eq!(error.to_string(), "field 'page_token': is not one that this query gave");
        }
    }

    #[test]
    fn sizes_are_coerced_and_negative_ones_refused() {
        assert_eq!(size(0, 50).unwrap(), 50);
        assert_eq!(size(7, 50).unwrap(), 7);
        assert_eq!(size(i32::MAX, 50).unwrap(), 1000);
        assert_eq!(size(-1, 50).unwrap_err().to_string(), "field 'page_size': is -1; it is 0 or more");
    }
}
