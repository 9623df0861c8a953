//! From flags and environment to a client.

use crate::cli::args::ServerArgs;
use crate::config::Secret;
use crate::rpc::client::{Client, Target};
use crate::{Error, ErrorKind, Result};
use std::io::Read;
use std::path::Path;

/// Most bytes of a token's or a certificate's file.
const LARGEST: u64 = 1 << 20;

/// Holds the token, where no file is named.
const TOKEN: &str = "SPECTRALD_TOKEN";

/// What the flags name.
pub(super) fn target(args: &ServerArgs) -> Result<Target> {
    Ok(Target {
        addr: args.addr.clone(),
        token: token(args.token_file.as_deref())?,
        ca: args.ca_cert.as_deref().map(read).transpose()?.map(String::into_bytes),
        cert: args.client_cert.as_deref().map(read).transpose()?.map(String::into_bytes),
        key: args.client_key.as_deref().map(read).transpose()?.map(Secret::new),
        server_name: args.server_name.clone(),
        insecure: args.insecure,
    })
}

/// A client of the coordinator that the flags name. Call it within a runtime.
pub(super) fn client(args: &ServerArgs) -> Result<Client> {
    Client::connect(&target(args)?)
}

fn token(file: Option<&Path>) -> Result<Option<Secret>> {
    let (text, place) = match (file, std::env::var_os(TOKEN)) {
        (Some(file), _) => (read(file)?, file.display().to_string()),
        (None, Some(text)) => {
            let text = text.into_string().map_err(|_| Error::invalid("is not text").in_field(TOKEN))?;
            (text, TOKEN.to_owned())
        }
        (None, None) => return Ok(None),
    };
    match text.trim() {
        "" => Err(Error::invalid("there is no token in it").in_file(place)),
        token => Ok(Some(Secret::new(token))),
    }
}

/// A small text file. Its content is in no message: it may be a secret.
fn read(path: &Path) -> Result<String> {
    let name = path.display().to_string();
    let failed = |e: std::io::Error| {
        let kind = match e.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::InvalidArgument,
        };
        Error::new(kind, format!("cannot be read: {e}")).in_file(&name)
    };
    let mut text = String::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text))
        .map_err(failed)?;
    if read as u64 > LARGEST {
        return Err(Error::invalid(format!("larger than {LARGEST} bytes")).in_file(&name));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_from_its_file_without_the_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "hunter2\n").unwrap();
        assert_eq!(token(Some(&file)).unwrap().unwrap().expose(), "hunter2");
        std::fs::write(&file, " \n").unwrap();
        let name = file.display();
        assert_eq!(token(Some(&file)).unwrap_err().to_string(), format!("{name}: there is no token in it"));
        std::fs::write(&file, [0xff]).unwrap();
        let error = token(Some(&file)).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{name}: cannot be read: ")), "{error}");
        std::fs::write(&file, "x".repeat(LARGEST as usize + 1)).unwrap();
        assert!(token(Some(&file)).unwrap_err().to_string().contains("larger than 1048576 bytes"));
        assert_eq!(token(Some(&folder.path().join("none"))).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
