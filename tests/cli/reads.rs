//! What is read, and what is not.

use super::Place;
use crate::support::hostile::{HostileServer, Request, answer};
use crate::support::models::fixture;
use std::io::Write as _;

/// A header that declares one matrix of 10 TB, and the size of the whole file.
fn ten_terabytes() -> (Vec<u8>, u64) {
    let bytes = 10_000_000_000_000_u64;
    let header = format!(
        "{{\"big.weight\":{{\"dtype\":\"F32\",\"shape\":[1250000,2000000],\"data_offsets\":[0,{bytes}]}}}}"
    );
    let mut head = (header.len() as u64).to_le_bytes().to_vec();
    head.extend_from_slice(header.as_bytes());
    let size = head.len() as u64 + bytes;
    (head, size)
}

/// A file of `size` bytes that begins with `head` and is zero after it; nothing else is there.
fn serve(head: Vec<u8>, size: u64) -> HostileServer {
    HostileServer::start(move |request, _| {
        let etag = "ETag: \"a\"\r\n";
        if !request.target.ends_with("model.safetensors") {
            return answer("404 Not Found", "Content-Length: 0\r\n", b"");
        }
        let Some(range) = request.range() else {
            assert_eq!(request.method, "HEAD");
            return answer("200 OK", &format!("{etag}Content-Length: {size}\r\n"), b"");
        };
        let body: Vec<u8> = range.clone().map(|i| head.get(i).copied().unwrap_or(0)).collect();
        let headers = format!(
            "{etag}Content-Length: {}\r\nContent-Range: bytes {}-{}/{size}\r\n",
            range.len(),
            range.start,
            range.end - 1
        );
        answer("206 Partial Content", &headers, &body)
    })
}

/// How far into the model the server was read.
fn read_up_to(server: &HostileServer) -> usize {
    let model = |request: &Request| request.target.ends_with("model.safetensors");
    let requests = server.requests();
    requests.iter().filter(|r| model(r)).filter_map(|r| r.range()).map(|r| r.end).max().unwrap_or(0)
}

#[test]
fn ten_terabytes_in_a_store_are_refused_by_their_header() {
    let (head, size) = ten_terabytes();
    let header_bytes = head.len();
    let server = serve(head, size);
    let uri = server.uri("/model.safetensors");
    let place = Place::new();
    let needs = "needs 45.5 TiB, more than the 1.0 GiB that --memory allows";
    let ran = place.run(&["analyze", &uri, "--memory", "1GiB"]);
    assert_eq!((ran.code, ran.stderr), (Some(2), format!("error: {uri}: tensor 'big.weight': {needs}\n")));
    let ran = place.run(&["esd", &uri, "big", "--memory", "1GiB"]);
    assert_eq!((ran.code, ran.stderr), (Some(2), format!("error: {uri}: tensor 'big': {needs}\n")));
    place.run(&["describe", &uri]).ok();
    assert_eq!(read_up_to(&server), header_bytes, "nothing but the header was read");
}

#[test]
fn ten_terabytes_in_a_sparse_file_are_refused() {
    let (head, size) = ten_terabytes();
    let place = Place::new();
    let mut file = std::fs::File::create(place.file("big.safetensors")).unwrap();
    file.write_all(&head).unwrap();
    // Takes no room; a file system whose files cannot be so long cannot hold such a model either.
    if let Err(error) = file.set_len(size) {
        let _ = writeln!(std::io::stderr(), "skipped: a sparse file of 10 TB: {error}");
        return;
    }
    let ran = place.run(&["analyze", "big.safetensors", "--memory", "1GiB"]);
    let needs = "needs 45.5 TiB, more than the 1.0 GiB that --memory allows";
    assert_eq!(
        (ran.code, ran.stderr),
        (Some(2), format!("error: big.safetensors: tensor 'big.weight': {needs}\n"))
    );
    // The default budget is what this machine has.
    assert_eq!(place.run(&["analyze", "big.safetensors"]).code, Some(2));
}

#[test]
fn describe_reads_headers_only_and_names_every_tensor() {
    let file = std::fs::read(fixture("models/silero/silero_vad_16k.safetensors")).unwrap();
    let header_bytes = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let size = file.len() as u64;
    let server = serve(file, size);
    let place = Place::new();
    let ran = place.run(&["describe", &server.uri("/model.safetensors"), "--format", "json"]);
    ran.ok();
    assert_eq!(read_up_to(&server), header_bytes);
    let described = ran.json();
    let rows: Vec<(&str, &str, &str)> = described["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let text = |column: &str| row[column].as_str().unwrap_or("");
            assert_eq!(row["flops"].as_f64().is_some_and(|flops| flops > 0.0), text("action") == "analyze");
            assert_eq!(
                row["peak_bytes"].as_u64().is_some_and(|bytes| bytes > 0),
                text("action") == "analyze"
            );
            assert_eq!(text("detail").is_empty(), text("action") == "analyze", "{row}");
            (text("tensor"), text("action"), text("reason"))
        })
        .collect();
    assert_eq!(
        rows,
        [
            ("stft_conv.weight", "analyze", ""),
            ("conv1.weight", "analyze", ""),
            ("conv1.bias", "skip", "BIAS"),
            ("conv2.weight", "analyze", ""),
            ("conv2.bias", "skip", "BIAS"),
            ("conv3.weight", "analyze", ""),
            ("conv3.bias", "skip", "BIAS"),
            ("conv4.weight", "analyze", ""),
            ("conv4.bias", "skip", "BIAS"),
            ("lstm_cell.weight_ih", "analyze", ""),
            ("lstm_cell.weight_hh", "analyze", ""),
            ("lstm_cell.bias_ih", "skip", "BIAS"),
            ("lstm_cell.bias_hh", "skip", "BIAS"),
            ("final_conv.weight", "skip", "TOO_FEW_EVALS"),
            ("final_conv.bias", "skip", "BIAS"),
        ]
    );
}
