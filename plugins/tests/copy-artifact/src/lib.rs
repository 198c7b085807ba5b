//! Returns an artifact unchanged, and a copy in upper case. The task reads and writes in pieces, so that the artifact's
//! size does not matter.

use std::io::{Read as _, Write as _};

use dovetail_sdk::prelude::*;

#[dovetail_sdk::task]
fn run(input: Input) -> Result<Output> {
    let Input { artifact } = input;
    let writer = Writer::new(&artifact.media_type());
    let mut piece = vec![0; 64 << 10];
    let mut reader = artifact.reader();
    let mut size = 0;
    loop {
        let read = reader.read(&mut piece)?;
        if read == 0 {
            break;
        }
        size += read as u64;
        piece[..read].make_ascii_uppercase();
        (&writer).write_all(&piece[..read])?;
    }
    Ok(Output { same: artifact, upper: Writer::finish(writer)?, size })
}
