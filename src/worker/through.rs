//! A model read through the coordinator: for what is on its disk alone, or in a store that this worker has no
//! credentials for.

use super::access::Access;
use super::link::{Link, Passport, Pause, may_pass, stopped};
use crate::rpc::proto::worker::v1::ReadObjectRequest;
use crate::rpc::status;
use crate::source::{ModelSource, ObjectIdentity, ReadAt};
use crate::{Error, ErrorKind, Result};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::Status;

/// How long a read goes on without a byte: the coordinator may be started anew meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);

/// A model's objects, as the coordinator lists them.
pub(super) struct Through {
    reader: Reader,
    uri: String,
    names: Vec<String>,
    single: bool,
}

/// What all objects of one model use.
#[derive(Clone)]
struct Reader {
    link: Link,
    access: Arc<Access>,
}

impl Through {
    /// Lists the objects. `uri` is for messages.
    ///
    /// # Errors
    /// What the coordinator says; `Unavailable` if it cannot be reached.
    pub(super) fn open(link: &Link, access: &Arc<Access>, uri: &str) -> Result<Self> {
        let reader = Reader { link: link.clone(), access: Arc::clone(access) };
        let wanted = || reader.access.is_wanted();
        let (names, single) = reader.patiently(|passport| reader.link.list(passport, &wanted))?;
        Ok(Self { uri: uri.to_owned(), names, single, reader })
    }
}

impl ModelSource for Through {
    fn uri(&self) -> &str {
        &self.uri
    }

    fn names(&self) -> &[String] {
        &self.names
    }

    fn open(&self, name: &str) -> Result<Arc<dyn ReadAt>> {
        let (_, identity) = self.reader.read(name, 0..0, None).map_err(|error| error.in_file(name))?;
        Ok(Arc::new(Object { reader: self.reader.clone(), name: name.to_owned(), identity }))
    }

    fn is_single_file(&self) -> bool {
        self.single
    }
}

struct Object {
    reader: Reader,
    name: String,
    identity: ObjectIdentity,
}

impl ReadAt for Object {
    fn name(&self) -> &str {
        &self.name
    }

    fn identity(&self) -> &ObjectIdentity {
        &self.identity
    }

    fn read_at(&self, range: Range<u64>) -> Result<Bytes> {
        let read = || {
            if range.start > range.end || range.end > self.identity.size {
                return Err(Error::malformed(format!(
                    "bytes {}..{} are asked for, but the file has {}",
                    range.start, range.end, self.identity.size
                )));
            }
            if range.is_empty() {
                return Ok(Bytes::new());
            }
            Ok(self.reader.read(&self.name, range, Some(&self.identity))?.0)
        };
        read().map_err(|error| error.in_file(self.name.as_str()))
    }
}

impl Reader {
    /// The range, and whose it is. What breaks off is asked for from where it broke.
    fn read(
        &self,
        name: &str,
        range: Range<u64>,
        pinned: Option<&ObjectIdentity>,
    ) -> Result<(Bytes, ObjectIdentity)> {
        let mut whole = Vec::new();
        let wanted = || self.access.is_wanted();
        let (mut pause, mut since) = (Pause::new(), Instant::now());
        let mut refused: Vec<Passport> = Vec::new();
        loop {
            let passport = self.passport(&refused)?;
            let begin = range.start + whole.len() as u64;
            let Passport { attempt, analysis } = passport.clone();
            let request =
                ReadObjectRequest { attempt, analysis, name: name.to_owned(), begin, end: range.end };
            let part = self.link.read(request, buffer(range.end - begin)?, &wanted);
            if let (Some(then), Some(now)) = (pinned, &part.identity) {
                check_same(then, now)?;
            }
            if !part.data.is_empty() {
                (pause, since) = (Pause::new(), Instant::now());
            }
            // The usual case is one part, which is taken as it is; the first has room for all.
            if whole.is_empty() {
                whole = part.data
            } else {
                whole.extend_from_slice(&part.data)
            }
            match (part.error, part.identity) {
                (None, Some(identity)) => return Ok((Bytes::from(whole), identity)),
                (None, None) => {
                    return Err(Error::malformed("the coordinator does not say which version it read"));
                }
                (Some(status), _) => {
                    self.after(&status, (&mut refused, passport), since)?;
                    std::thread::sleep(pause.next());
                }
            }
        }
    }

    fn patiently<T>(&self, mut call: impl FnMut(&Passport) -> std::result::Result<T, Status>) -> Result<T> {
        let (mut pause, since, mut refused) = (Pause::new(), Instant::now(), Vec::new());
        loop {
            let passport = self.passport(&refused)?;
            match call(&passport) {
                Ok(answer) => return Ok(answer),
                Err(status) => {
                    self.after(&status, (&mut refused, passport), since)?;
                    std::thread::sleep(pause.next());
                }
            }
        }
    }

    /// A lease of this model that was not refused.
    fn passport(&self, refused: &[Passport]) -> Result<Passport> {
        let usable = self.access.passports().into_iter().rfind(|passport| !refused.contains(passport));
        usable.ok_or_else(stopped)
    }

    /// Whether to go on after a failure: with time, or under another lease, for one that has ended is refused although
    /// nothing is wrong with the model.
    fn after(
        &self,
        status: &Status,
        (refused, passport): (&mut Vec<Passport>, Passport),
        since: Instant,
    ) -> Result<()> {
        if !self.access.is_wanted() {
            return Err(stopped());
        }
        let error = status::error(status);
        if may_pass(&error) {
            return if since.elapsed() < PATIENCE { Ok(()) } else { Err(lasting(error)) };
        }
        refused.push(passport);
        let others = self.access.passports().iter().any(|other| !refused.contains(other));
        if others { Ok(()) } else { Err(error) }
    }
}

/// What did not pass is the world's fault, whatever the coordinator calls it.
fn lasting(error: Error) -> Error {
    if error.kind() == ErrorKind::Unavailable {
        return error;
    }
    Error::new(ErrorKind::Unavailable, format!("through the coordinator: {error}"))
}

fn check_same(then: &ObjectIdentity, now: &ObjectIdentity) -> Result<()> {
    if then.size == now.size && then.pin == now.pin {
        return Ok(());
    }
    let message =
        format!("the object changed while it was read: it was {} and is {} now", version(then), version(now));
    Err(Error::new(ErrorKind::Changed, message))
}

/// What tells versions apart, for people.
pub(super) fn version(object: &ObjectIdentity) -> String {
    let pin = object.pin.as_deref().map_or("without version".to_owned(), |pin| format!("version {pin}"));
    format!("{} bytes, {pin}", object.size)
}

/// Refuses what the allocator cannot give, which would otherwise end the process.
fn buffer(length: u64) -> Result<Vec<u8>> {
    let too_large =
        || Error::new(ErrorKind::TooLarge, format!("a read of {length} bytes does not fit in memory"));
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(usize::try_from(length).map_err(|_| too_large())?).map_err(|_| too_large())?;
    Ok(buffer)
}
