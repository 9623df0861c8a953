//! Bearer tokens: a file of names, hashes and roles.

use super::role::{Role, Roles};
use super::watched::Watched;
use crate::config::{LineNumbers, Origin, Problems, Secret};
use crate::{Error, ErrorKind, Result};
use sha2::{Digest as _, Sha256};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use toml::de::{DeTable, DeValue};

/// Largest token file, in bytes.
const LONGEST_FILE: u64 = 1 << 20;
/// How often a file is looked at for changes.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The tokens of a file, read again when it changes.
pub struct Tokens {
    watched: Watched<Vec<Entry>>,
}

/// One `[[token]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    name: String,
    sha256: [u8; 32],
    roles: Roles,
}

impl Tokens {
    /// Reads a file of `[[token]]` tables: `name`, `sha256` (64 hexadecimal digits), `roles` (of read, submit, admin,
    /// worker). The file is read again when it changes; a broken new version leaves the old one in force and is
    /// logged.
    ///
    /// # Errors
    /// `InvalidArgument` with all mistakes, one a line of [`Error::message`].
    pub fn load(path: &Path) -> Result<Self> {
        Self::load_every(path, CHECK_EVERY)
    }

    /// As [`Tokens::load`], looking for changes no more often than `every`.
    pub(super) fn load_every(path: &Path, every: Duration) -> Result<Self> {
        let file = PathBuf::from(path);
        let watched = Watched::new("tokens", vec![file.clone()], every, move || read(&file))?;
        Ok(Self { watched })
    }

    /// Name and roles of a token. Its hash is compared with every entry in constant time.
    pub fn find(&self, token: &str) -> Option<(String, Roles)> {
        let entries = self.watched.get();
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        // 0: none; the time taken does not tell which entry it was, or how much of it agreed.
        let mut found = 0_u32;
        for (number, entry) in (1_u32..).zip(entries.iter()) {
            found.conditional_assign(&number, entry.sha256.ct_eq(&hash));
        }
        let entry = entries.get(usize::try_from(found).ok()?.checked_sub(1)?)?;
        Some((entry.name.clone(), entry.roles))
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<String> = self.watched.get().iter().map(|entry| entry.name.clone()).collect();
        f.debug_struct("Tokens").field("names", &names).finish()
    }
}

/// Whether a token may have this name: 1 to 64 of A-Z a-z 0-9 . _ - @.
pub fn is_token_name(name: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
    (1..=64).contains(&name.len()) && name.chars().all(known)
}

/// A new token and the `sha256` of its entry: `spd_` and 43 letters that hold 32 random bytes.
///
/// # Errors
/// `Internal` if the machine gives no random bytes.
pub fn new_token() -> Result<(Secret, String)> {
    let mut random = [0_u8; 32];
    let source = aws_lc_rs::default_provider().secure_random;
    source.fill(&mut random).map_err(|_| Error::new(ErrorKind::Internal, "no random bytes are to be had"))?;
    let secret = format!("spd_{}", base64url(&random));
    let hash = hex(&Sha256::digest(secret.as_bytes()));
    Ok((Secret::new(secret), hash))
}

/// Base64 with `-` and `_`, without padding (RFC 4648, section 5).
fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let mut bits = 0_u32;
        for place in 0..3 {
            bits = bits << 8 | u32::from(three.get(place).copied().unwrap_or_default());
        }
        for letter in 0..=three.len() {
            let index = bits >> (18 - 6 * letter) & 63;
            out.push(char::from(LETTERS[index as usize]));
        }
    }
    out
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len() == 64)?;
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    Some(out)
}

/// All entries, or all mistakes.
fn read(path: &Path) -> Result<Vec<Entry>> {
    let shown = path.display().to_string();
    let at = |line| Origin::File { file: shown.clone(), line };
    let mut problems = Problems::default();
    let mut entries: Vec<Entry> = Vec::new();
    let text = match std::fs::metadata(path) {
        Ok(data) if data.is_file() && data.len() <= LONGEST_FILE => std::fs::read_to_string(path),
        Ok(_) => Err(std::io::Error::other(format!("not a regular file of at most {LONGEST_FILE} bytes"))),
        Err(error) => Err(error),
    };
    let text = text.map_err(|error| Error::invalid(format!("{}: cannot be read: {error}", at(0))))?;
    warn_of_writers(path);
    let lines = LineNumbers::new(&text);
    let (table, errors) = DeTable::parse_recoverable(&text);
    for error in errors {
        // The message may quote nothing of the file: a secret may stand there by mistake.
        problems.add_general(&at(error.span().map_or(0, |span| lines.at(span.start))), "not TOML");
    }
    for (key, value) in table.get_ref() {
        let origin = at(lines.at(key.span().start));
        match value.get_ref() {
            DeValue::Array(tokens) if key.get_ref() == "token" => {
                for token in tokens.iter() {
                    let origin = at(lines.at(token.span().start));
                    entries.extend(entry(token.get_ref(), &origin, &mut problems));
                }
            }
            _ if key.get_ref() == "token" => problems.add(&origin, "token", "write [[token]]"),
            _ => problems.add(&origin, key.get_ref(), "unknown key: the file holds [[token]] tables"),
        }
    }
    if entries.is_empty() && problems.is_empty() {
        problems.add_general(&at(0), "holds no [[token]]: nobody could be let in");
    }
    duplicates(&entries, &at(0), &mut problems);
    problems.into_result().map(|()| entries)
}

/// Names and tokens that stand there twice.
fn duplicates(entries: &[Entry], origin: &Origin, problems: &mut Problems) {
    let mut names = HashSet::new();
    let mut hashes = HashMap::new();
    for one in entries {
        if !names.insert(&one.name) {
            problems.add(origin, "token.name", format!("'{}' is there twice", one.name));
        }
        if let Some(other) = hashes.insert(one.sha256, &one.name) {
            problems.add(origin, "token.sha256", format!("'{other}' and '{}' are the same token", one.name));
        }
    }
}

/// One entry; its mistakes go to `problems`. Values are not repeated in messages, but names and roles.
fn entry(value: &DeValue<'_>, origin: &Origin, problems: &mut Problems) -> Option<Entry> {
    let Some(table) = value.as_table() else {
        problems.add(origin, "token", "write [[token]]");
        return None;
    };
    for key in table.keys().filter(|key| !["name", "sha256", "roles"].contains(&key.get_ref().as_ref())) {
        problems.add(
            origin,
            &format!("token.{}", key.get_ref()),
            "unknown key: a token has name, sha256 and roles",
        );
    }
    let text = |key: &str| table.get(key).and_then(|value| value.get_ref().as_str());
    let name = text("name").filter(|name| is_token_name(name));
    if name.is_none() {
        problems.add(origin, "token.name", "is needed: 1 to 64 of A-Z a-z 0-9 . _ - @");
    }
    let sha256 = text("sha256").and_then(unhex);
    if sha256.is_none() {
        problems.add(origin, "token.sha256", "is needed: 64 hexadecimal digits");
    }
    let roles = roles(table.get("roles").map(|value| value.get_ref()), origin, problems);
    Some(Entry { name: name?.to_owned(), sha256: sha256?, roles: roles? })
}

fn roles(value: Option<&DeValue<'_>>, origin: &Origin, problems: &mut Problems) -> Option<Roles> {
    let what = "is needed: a list of read, submit, admin, worker";
    let Some(list) = value.and_then(DeValue::as_array).filter(|list| !list.is_empty()) else {
        problems.add(origin, "token.roles", what);
        return None;
    };
    let mut roles = Roles::NONE;
    for one in list.iter() {
        match one.get_ref().as_str().map(|name| (name, Role::parse(name))) {
            Some((_, Some(role))) => roles = roles.with(role),
            Some((name, None)) => {
                problems.add(
                    origin,
                    "token.roles",
                    format!("'{name}' is not one of read, submit, admin, worker"),
                );
                return None;
            }
            None => {
                problems.add(origin, "token.roles", what);
                return None;
            }
        }
    }
    Some(roles)
}

/// Whoever may write the file may let himself in.
fn warn_of_writers(path: &Path) {
    #[cfg(unix)]
    if let Ok(data) = std::fs::metadata(path) {
        let mode = std::os::unix::fs::PermissionsExt::mode(&data.permissions());
        if mode & 0o022 != 0 {
            tracing::warn!(file = %path.display(), mode = format!("{:o}", mode & 0o777), "others than its owner may write the token file");
        }
    }
    #[cfg(not(unix))]
    let _ = path;
}
