//! ttrpc in one conversation: messages with a header of ten bytes, and calls in them.
//!
//! No crate does it: the one there is (`ttrpc`) brings a second protobuf, and wants the socket itself.

use prost::Message as _;

use super::Error;
use crate::proto::ttrpc::{Request, Response, Status};

/// The bytes before a message: length, stream, kind, flags.
const HEADER: usize = 10;

/// The longest message that ttrpc allows.
pub(super) const LONGEST_MESSAGE: u32 = 4 << 20;

const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;

/// How many characters an error may have: they end in a log and in a pod's events.
const LONGEST_WORDS: usize = 1024;

/// gRPC's codes, as far as we say them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    InvalidArgument = 3,
    FailedPrecondition = 9,
    Unimplemented = 12,
    Unavailable = 14,
}

/// Why a call failed, as the caller is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: Code,
    pub(super) words: String,
}

impl Failure {
    pub(super) fn new(code: Code, words: impl Into<String>) -> Self {
        let words = words.into();
        Self { code, words }
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Message {
    /// A call, and the stream on which its answer is awaited.
    Request(u32, Request),
    /// An answer, and the stream of its call.
    Response(u32, Response),
}

/// Puts messages together from bytes as they come.
#[derive(Debug, Default)]
pub(super) struct Messages {
    bytes: Vec<u8>,
    /// How many of them were messages that are gone.
    taken: usize,
}

impl Messages {
    /// More bytes have come.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        // Once for all messages of a frame: there may be very many.
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message.
    ///
    /// # Errors
    /// [`Error::Malformed`]: what comes after it cannot be understood either.
    pub(super) fn next(&mut self) -> Result<Option<Message>, Error> {
        let left = &self.bytes[self.taken..];
        let Some(header) = left.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [l0, l1, l2, l3, s0, s1, s2, s3, kind, _flags] = *header;
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        if length > LONGEST_MESSAGE {
            return Err(Error::malformed(format!(
                "a message of {length} bytes, where {LONGEST_MESSAGE} is the most"
            )));
        }
        let end = HEADER + length as usize;
        let Some(data) = left.get(HEADER..end) else {
            return Ok(None);
        };
        let unreadable = |error| Error::malformed(format!("no envelope of ttrpc ({error})"));
        let message = match kind {
            REQUEST => Message::Request(stream, Request::decode(data).map_err(unreadable)?),
            RESPONSE => Message::Response(stream, Response::decode(data).map_err(unreadable)?),
            // NRI streams nothing.
            kind => {
                return Err(Error::malformed(format!("a message of the kind {kind}")));
            }
        };
        self.taken += end;
        Ok(Some(message))
    }
}

/// A call's bytes.
pub(super) fn request(stream: u32, request: &Request) -> Vec<u8> {
    message(stream, REQUEST, &request.encode_to_vec())
}

/// An answer's bytes.
pub(super) fn response(stream: u32, answer: Result<Vec<u8>, Failure>) -> Vec<u8> {
    let response = match answer {
        Ok(payload) => Response {
            status: None,
            payload,
        },
        Err(mut failure) => {
            if let Some((end, _)) = failure.words.char_indices().nth(LONGEST_WORDS) {
                failure.words.truncate(end);
            }
            Response {
                status: Some(Status {
                    code: failure.code as i32,
                    message: failure.words,
                }),
                payload: Vec::new(),
            }
        }
    };
    message(stream, RESPONSE, &response.encode_to_vec())
}

fn message(stream: u32, kind: u8, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).expect("what we say is short");
    let mut bytes = Vec::with_capacity(HEADER + data.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(&[kind, 0]);
    bytes.extend_from_slice(data);
    bytes
}

#[cfg(test)]
mod tests {
    use super::{
        Code, Failure, LONGEST_MESSAGE, LONGEST_WORDS, Message, Messages, request, response,
    };
    use crate::nri::Error;
    use crate::proto::ttrpc::Request;

    fn call() -> Request {
        Request {
            service: "a.Service".to_owned(),
            method: "Act".to_owned(),
            payload: b"payload".to_vec(),
            timeout_nano: 7,
        }
    }

    fn only(messages: &mut Messages) -> Message {
        let message = messages.next().unwrap().expect("a message");
        assert_eq!(messages.next().unwrap(), None);
        message
    }

    #[test]
    fn a_call_has_the_header_that_go_writes() {
        let bytes = request(3, &call());
        let length = u8::try_from(bytes.len() - 10).unwrap();
        assert_eq!(&bytes[..10], &[0, 0, 0, length, 0, 0, 0, 3, 1, 0]);
        assert_eq!(&bytes[10..12], &[0x0a, 9]);
    }

    #[test]
    fn messages_come_in_any_pieces() {
        let mut wire = request(3, &call());
        wire.extend(response(5, Ok(b"done".to_vec())));
        for size in 1..wire.len() {
            let mut messages = Messages::default();
            let mut seen = Vec::new();
            for piece in wire.chunks(size) {
                messages.feed(piece);
                while let Some(message) = messages.next().unwrap() {
                    seen.push(message);
                }
            }
            let [Message::Request(3, asked), Message::Response(5, answer)] = &seen[..] else {
                panic!("{size}: {seen:?}");
            };
            assert_eq!((asked, &answer.payload[..]), (&call(), &b"done"[..]));
            assert_eq!(answer.status, None);
        }
    }

    #[test]
    fn a_failure_has_its_code_and_its_words_but_not_too_many() {
        let words = "ä".repeat(LONGEST_WORDS + 1);
        let failure = Failure::new(Code::InvalidArgument, words);
        let mut messages = Messages::default();
        messages.feed(&response(1, Err(failure)));
        let Message::Response(1, answer) = only(&mut messages) else {
            panic!("no answer");
        };
        let status = answer.status.unwrap();
        assert_eq!(status.code, 3);
        assert_eq!(status.message, "ä".repeat(LONGEST_WORDS));
    }

    #[test]
    fn what_is_no_ttrpc_is_an_error_and_no_panic() {
        let too_long = [
            &(LONGEST_MESSAGE + 1).to_be_bytes()[..],
            &[0, 0, 0, 1, 1, 0],
        ]
        .concat();
        let stranger = vec![0, 0, 0, 0, 0, 0, 0, 1, 9, 0];
        let no_protobuf = vec![0, 0, 0, 2, 0, 0, 0, 1, 1, 0, 0xff, 0xff];
        for bytes in [
            too_long,
            stranger,
            no_protobuf,
            b"GET / HTTP/1.1\r\n".to_vec(),
        ] {
            let mut messages = Messages::default();
            messages.feed(&bytes);
            let refused = messages.next();
            assert!(matches!(refused, Err(Error::Malformed { .. })), "{bytes:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_an_error(bytes in proptest::collection::vec(0_u8.., 0..200)) {
            let mut messages = Messages::default();
            messages.feed(&bytes);
            while let Ok(Some(_)) = messages.next() {}
        }
    }
}
