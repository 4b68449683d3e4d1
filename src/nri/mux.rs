//! Two conversations on one socket: frames with the number of the conversation and a length, both
//! big-endian, before the bytes.
//!
//! A conversation is a stream of bytes: where a frame ends means nothing.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Error;
use super::ttrpc;

/// The conversation in which containerd asks.
pub(super) const PLUGIN: u32 = 1;
/// The conversation in which we ask.
pub(super) const RUNTIME: u32 = 2;

const HEADER: usize = 8;

/// The longest frame that there may be: a whole message of ttrpc with its header.
const LONGEST_FRAME: u32 = ttrpc::LONGEST_MESSAGE + 10;

/// The longest frame that we send. The other side reads a frame into a buffer of this size while it
/// waits for a message's header, and gives up if it does not fit.
const PIECE: usize = 4096;

/// Some bytes of one conversation.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) conversation: u32,
    pub(super) bytes: Vec<u8>,
}

/// Reads one frame. Memory is taken as bytes come, not as a header promises them.
///
/// # Errors
/// [`Error::Closed`] at the end, [`Error::Malformed`] for a frame that is too long.
pub(super) async fn read(trunk: &mut (impl AsyncRead + Unpin)) -> Result<Frame, Error> {
    let conversation = trunk.read_u32().await.map_err(Error::of_stream)?;
    let length = trunk.read_u32().await.map_err(Error::of_stream)?;
    if length > LONGEST_FRAME {
        return Err(Error::malformed(format!(
            "a frame of {length} bytes, where {LONGEST_FRAME} is the most"
        )));
    }
    let mut bytes = Vec::new();
    let read = trunk
        .take(length.into())
        .read_to_end(&mut bytes)
        .await
        .map_err(Error::of_stream)?;
    if read as u64 != u64::from(length) {
        return Err(Error::Closed);
    }
    Ok(Frame {
        conversation,
        bytes,
    })
}

/// Writes bytes of one conversation.
///
/// # Errors
/// If the connection is gone.
pub(super) async fn write(
    trunk: &mut (impl AsyncWrite + Unpin),
    conversation: u32,
    bytes: &[u8],
) -> Result<(), Error> {
    let mut frames = Vec::with_capacity(bytes.len() + bytes.len().div_ceil(PIECE) * HEADER);
    for piece in bytes.chunks(PIECE) {
        frames.extend_from_slice(&conversation.to_be_bytes());
        let length = u32::try_from(piece.len()).expect("a piece is short");
        frames.extend_from_slice(&length.to_be_bytes());
        frames.extend_from_slice(piece);
    }
    trunk.write_all(&frames).await.map_err(Error::of_stream)
}

#[cfg(test)]
mod tests {
    use super::{Frame, LONGEST_FRAME, PLUGIN, RUNTIME, read, write};
    use crate::nri::Error;

    #[tokio::test]
    async fn what_is_written_is_read_in_its_conversation() {
        let mut wire = Vec::new();
        write(&mut wire, RUNTIME, b"ask").await.unwrap();
        write(&mut wire, PLUGIN, b"answer").await.unwrap();
        assert_eq!(&wire[..11], b"\0\0\0\x02\0\0\0\x03ask");
        let mut wire = wire.as_slice();
        for (conversation, bytes) in [(RUNTIME, &b"ask"[..]), (PLUGIN, b"answer")] {
            let bytes = bytes.to_vec();
            let expected = Frame {
                conversation,
                bytes,
            };
            assert_eq!(read(&mut wire).await.unwrap(), expected);
        }
        assert!(matches!(read(&mut wire).await, Err(Error::Closed)));
    }

    /// Go's reader has 4096 bytes of room for a frame.
    #[tokio::test]
    async fn long_messages_go_in_pieces() {
        let mut wire = Vec::new();
        let long: Vec<u8> = (0..10_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        write(&mut wire, PLUGIN, &long).await.unwrap();
        let mut wire = wire.as_slice();
        let mut lengths = Vec::new();
        let mut whole = Vec::new();
        while let Ok(frame) = read(&mut wire).await {
            lengths.push(frame.bytes.len());
            whole.extend(frame.bytes);
        }
        assert_eq!(lengths, [4096, 4096, 1808]);
        assert_eq!(whole, long);
    }

    #[tokio::test]
    async fn an_end_in_the_middle_is_an_end() {
        let whole = b"\0\0\0\x01\0\0\0\x05hello";
        for length in 0..whole.len() {
            let ended = read(&mut &whole[..length]).await;
            assert!(matches!(ended, Err(Error::Closed)), "{length}");
        }
        assert!(read(&mut &whole[..]).await.is_ok());
    }

    /// A header that promises gigabytes is refused before a byte of them is waited for.
    #[tokio::test]
    async fn a_frame_that_is_too_long_is_refused() {
        for length in [LONGEST_FRAME + 1, u32::MAX] {
            let mut wire = PLUGIN.to_be_bytes().to_vec();
            wire.extend(length.to_be_bytes());
            let refused = read(&mut wire.as_slice()).await;
            assert!(matches!(refused, Err(Error::Malformed { .. })), "{length}");
        }
    }
}
