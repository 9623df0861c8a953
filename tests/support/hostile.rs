//! An HTTP server that does exactly what a test scripts, byte for byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Lower-case names.
    headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The range that `Range: bytes=a-b` asks for.
    pub(crate) fn range(&self) -> Option<Range<usize>> {
        let (start, end) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some(start.parse().ok()?..end.parse::<usize>().ok()? + 1)
    }
}

/// What the server does next; after the last step it closes the connection.
pub(crate) enum Step {
    Send(Vec<u8>),
    /// Sends one byte after another with this pause between them.
    Drip(Vec<u8>, Duration),
    /// Sends nothing until the client hangs up.
    Stall,
}

/// Steps that send `status`, `headers` (each line with `\r\n`) and `body`. The connection is closed afterwards.
pub(crate) fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<Step> {
    let mut bytes = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n").into_bytes();
    bytes.extend_from_slice(body);
    vec![Step::Send(bytes)]
}

/// An object as an honest server serves it: HEAD, and GET with a range.
#[derive(Clone)]
pub(crate) struct Honest {
    pub(crate) body: Vec<u8>,
    pub(crate) etag: Option<&'static str>,
}

impl Honest {
    /// The headers that belong to `request`, without status line and empty line.
    pub(crate) fn headers(&self, request: &Request) -> String {
        let etag = self.etag.map(|tag| format!("ETag: {tag}\r\n")).unwrap_or_default();
        let size = self.body.len();
        match request.range() {
            Some(part) => format!(
                "{etag}Content-Length: {}\r\nContent-Range: bytes {}-{}/{size}\r\n",
                part.len(),
                part.start,
                part.end - 1
            ),
            None => format!("{etag}Content-Length: {size}\r\n"),
        }
    }

    pub(crate) fn answer(&self, request: &Request) -> Vec<Step> {
        let body = match (request.method.as_str(), request.range()) {
            ("HEAD", _) => &[],
            (_, Some(part)) => &self.body[part],
            (_, None) => &self.body[..],
        };
        let status = if request.range().is_some() { "206 Partial Content" } else { "200 OK" };
        answer(status, &self.headers(request), body)
    }
}

/// A server whose every answer is scripted. Stops when dropped.
pub(crate) struct HostileServer {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    stopped: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

type Script = dyn Fn(&Request, usize) -> Vec<Step> + Send + Sync;

impl HostileServer {
    /// `script` gets each request and how many came before with the same method.
    pub(crate) fn start(script: impl Fn(&Request, usize) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stopped = Arc::new(AtomicBool::new(false));
        let script: Arc<Script> = Arc::new(script);
        let (log, stop) = (Arc::clone(&requests), Arc::clone(&stopped));
        let acceptor = std::thread::spawn(move || {
            for socket in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let (log, script) = (Arc::clone(&log), Arc::clone(&script));
                std::thread::spawn(move || {
                    // A client that hangs up is part of many scripts.
                    let _ = serve(socket?, &log, script.as_ref());
                    std::io::Result::Ok(())
                });
            }
        });
        Self { address, requests, stopped, acceptor: Some(acceptor) }
    }

    /// `http://127.0.0.1:PORT` and `path`, which begins with `/`.
    pub(crate) fn uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All requests until now.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// How many requests of this method came until now.
    pub(crate) fn count(&self, method: &str) -> usize {
        self.requests().iter().filter(|request| request.method == method).count()
    }
}

impl Drop for HostileServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the acceptor, which then sees that it is to stop.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn serve(socket: TcpStream, log: &Mutex<Vec<Request>>, script: &Script) -> std::io::Result<()> {
    let mut reader = BufReader::new(socket.try_clone()?);
    let Some(request) = read_request(&mut reader)? else { return Ok(()) };
    let nth = {
        let mut log = log.lock().unwrap();
        log.push(request.clone());
        log.iter().filter(|other| other.method == request.method).count() - 1
    };
    let mut socket = socket;
    for step in script(&request, nth) {
        match step {
            Step::Send(bytes) => socket.write_all(&bytes)?,
            Step::Drip(bytes, pause) => {
                for byte in bytes {
                    socket.write_all(&[byte])?;
                    std::thread::sleep(pause);
                }
            }
            Step::Stall => {
                reader.read_to_end(&mut Vec::new())?;
            }
        }
    }
    Ok(())
}

fn read_request(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let Some((first, rest)) = lines.split_first() else { return Ok(None) };
    let mut words = first.split(' ').map(str::to_owned);
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let header = |line: &String| line.split_once(':').map(|(k, v)| (k.to_lowercase(), v.trim().to_owned()));
    Ok(Some(Request { method, target, headers: rest.iter().filter_map(header).collect() }))
}
