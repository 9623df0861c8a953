//! Compiles proto/ with prost and tonic over protox, a protobuf compiler in Rust: no protoc is needed.

use protox::prost::Message;
use std::error::Error;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let files = protos(Path::new("proto"))?;
    let descriptors = protox::compile(&files, ["proto"])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    // For reflection, comments left out.
    let mut plain = descriptors.clone();
    plain.file.iter_mut().for_each(|file| file.source_code_info = None);
    std::fs::write(out.join("descriptors.bin"), plain.encode_to_vec())?;
    // Maps in order, so that equal messages are equal bytes.
    tonic_prost_build::configure().build_transport(false).btree_map(".").compile_fds(descriptors)?;
    println!("cargo::rerun-if-changed=proto");
    Ok(())
}

/// Every .proto file below `folder`, in a fixed order.
fn protos(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(protos(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
