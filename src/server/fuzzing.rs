//! A door for `fuzz/`: requests as they come over the wire, without a disk.

use std::path::PathBuf;

use prost::Message;

use super::status::status;
use super::wanted::Wanted;
use crate::image::Format;
use crate::proto::v1;

/// What `Attach` was found to ask for.
#[derive(Debug)]
pub struct Chain {
    /// The disk's name.
    pub id: String,
    /// Its files, lowest first.
    pub deltas: Vec<Delta>,
    /// Is nothing written?
    pub read_only: bool,
}

/// One of its files.
#[derive(Debug)]
pub struct Delta {
    /// Where it is.
    pub path: PathBuf,
    /// Is it said to be a plain file?
    pub raw: bool,
    /// Does it have a seal?
    pub sealed: bool,
}

/// `Attach` with this message; `None` if it is none.
///
/// # Errors
/// The status that the caller gets.
#[must_use]
pub fn attach(message: &[u8]) -> Option<Result<Chain, String>> {
    v1::AttachRequest::decode(message).ok().map(parse)
}

/// `Attach` with these words.
///
/// # Errors
/// The status that the caller gets.
pub fn attach_paths(id: String, paths: Vec<String>, read_only: bool) -> Result<Chain, String> {
    let delta = |path| v1::Delta {
        path,
        ..Default::default()
    };
    parse(v1::AttachRequest {
        id,
        deltas: paths.into_iter().map(delta).collect(),
        read_only,
        ..Default::default()
    })
}

fn parse(request: v1::AttachRequest) -> Result<Chain, String> {
    let refused = |error| format!("{:?}", status(&error).code());
    let wanted = Wanted::parse(request).map_err(refused)?;
    let delta = |delta: super::wanted::Delta| Delta {
        raw: delta.format == Some(Format::Raw),
        sealed: delta.seal.is_some(),
        path: delta.path,
    };
    Ok(Chain {
        id: wanted.id,
        deltas: wanted.deltas.into_iter().map(delta).collect(),
        read_only: wanted.read_only,
    })
}
