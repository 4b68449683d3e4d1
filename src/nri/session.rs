//! One connection: we introduce ourselves, containerd asks, we answer, until it ends.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

use super::mux::{self, PLUGIN, RUNTIME};
use super::plugin::{Answer, Heard, Plugin};
use super::sizes::Sizes;
use super::ttrpc::{self, Failure, Message, Messages};
use super::{Error, Options};
use crate::proto::nri::RegisterPluginRequest;
use crate::proto::ttrpc::{Request, Response};

/// The stream of our only call. A client's are odd.
const REGISTER: u32 = 1;

/// How long containerd may take to let us in: longer than it gives a plugin.
const REGISTER_LIMIT: Duration = Duration::from_secs(10);

/// How long an answer may take to be taken off our hands.
const SEND_LIMIT: Duration = Duration::from_secs(5);

/// How many containers may be sized at a time; the next waits for one of them.
const MOST_AT_ONCE: usize = 32;

/// How many frames may wait to be looked at.
const FRAMES_AHEAD: usize = 4;

/// How a connection went.
#[derive(Debug)]
pub(super) struct Ended {
    /// containerd took us and told all it knew.
    pub(super) worked: bool,
    /// Why it ended.
    pub(super) reason: Error,
}

/// Talks until the connection ends.
pub(super) async fn serve<S: Sizes>(
    plugin: &Arc<Plugin<S>>,
    options: &Options,
    trunk: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Ended {
    let (mut reader, writer) = tokio::io::split(trunk);
    let (sender, frames) = mpsc::channel(FRAMES_AHEAD);
    // Reading a frame cannot be broken off half-way: it has a task of its own.
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let frame = mux::read(&mut reader).await;
            let over = frame.is_err();
            if sender.send(frame).await.is_err() || over {
                return;
            }
        }
    });
    let mut session = Session {
        plugin,
        writer,
        heard: Heard::default(),
        registered: false,
        asked: Messages::default(),
        answered: Messages::default(),
        running: JoinSet::new(),
        catching_up: JoinSet::new(),
    };
    let reason = match session.run(options, frames).await {
        Err(reason) => reason,
        Ok(never) => match never {},
    };
    plugin.containers.lost();
    Ended {
        worked: session.heard.synchronized,
        reason,
    }
}

/// An answer, and its stream.
type Done = (u32, Result<Vec<u8>, Failure>);

/// What cannot be.
enum Never {}

struct Session<'a, S, W> {
    plugin: &'a Arc<Plugin<S>>,
    writer: W,
    heard: Heard,
    registered: bool,
    /// In the conversation in which containerd asks.
    asked: Messages,
    /// In ours.
    answered: Messages,
    /// Answers that take their time, each with its stream. They end with the connection.
    running: JoinSet<Done>,
    /// What was asked for while we were away. Ends with the connection: the next one begins anew.
    catching_up: JoinSet<()>,
}

impl<S: Sizes, W: AsyncWrite + Unpin> Session<'_, S, W> {
    async fn run(
        &mut self,
        options: &Options,
        mut frames: mpsc::Receiver<Result<mux::Frame, Error>>,
    ) -> Result<Never, Error> {
        self.register(options).await?;
        let late = tokio::time::sleep(REGISTER_LIMIT);
        tokio::pin!(late);
        loop {
            tokio::select! {
                () = &mut late, if !self.registered => {
                    return Err(Error::Silent { act: "let us in", limit: REGISTER_LIMIT });
                }
                frame = frames.recv() => {
                    let frame = frame.ok_or(Error::Closed)??;
                    self.hear(frame).await?;
                }
                Some(done) = self.running.join_next() => self.finish(done).await?,
            }
        }
    }

    async fn finish(&mut self, done: Result<Done, JoinError>) -> Result<(), Error> {
        match done {
            Ok((stream, answer)) => self.send(stream, answer).await,
            // Whoever waits for that answer should not wait for ever.
            Err(error) => Err(Error::malformed(format!("a call that broke us ({error})"))),
        }
    }

    async fn register(&mut self, options: &Options) -> Result<(), Error> {
        let payload = RegisterPluginRequest {
            plugin_name: options.name.clone(),
            plugin_idx: options.index.clone(),
        };
        let request = Request {
            service: "nri.pkg.api.v1alpha1.Runtime".to_owned(),
            method: "RegisterPlugin".to_owned(),
            payload: payload.encode_to_vec(),
            timeout_nano: 0,
        };
        let bytes = ttrpc::request(REGISTER, &request);
        self.write(RUNTIME, &bytes).await
    }

    async fn hear(&mut self, frame: mux::Frame) -> Result<(), Error> {
        match frame.conversation {
            PLUGIN => {
                self.asked.feed(&frame.bytes);
                while let Some(message) = self.asked.next()? {
                    match message {
                        Message::Request(stream, request) => self.obey(stream, &request).await?,
                        Message::Response(..) => {
                            return Err(Error::malformed("an answer to nothing"));
                        }
                    }
                }
            }
            RUNTIME => {
                self.answered.feed(&frame.bytes);
                while let Some(message) = self.answered.next()? {
                    match message {
                        Message::Response(REGISTER, response) => self.let_in(response)?,
                        _ => return Err(Error::malformed("an answer to nothing")),
                    }
                }
            }
            // A conversation that a later version has is none of ours.
            other => tracing::debug!(conversation = other, "words for nobody"),
        }
        Ok(())
    }

    fn let_in(&mut self, response: Response) -> Result<(), Error> {
        match response.status {
            Some(status) if status.code != 0 => Err(Error::Refused {
                code: status.code,
                words: status.message,
            }),
            _ => {
                self.registered = true;
                Ok(())
            }
        }
    }

    async fn obey(&mut self, stream: u32, request: &Request) -> Result<(), Error> {
        tracing::debug!(method = request.method, "containerd calls");
        let answer = self.plugin.answer(&mut self.heard, request);
        let missed = std::mem::take(&mut self.heard.missed);
        if !missed.is_empty() {
            let plugin = Arc::clone(self.plugin);
            self.catching_up
                .spawn(async move { plugin.catch_up(missed).await });
        }
        match answer {
            Answer::Now(answer) => self.send(stream, answer).await,
            Answer::Later(creation) => {
                // Each of them has a limit of its own, so this ends.
                if self.running.len() >= MOST_AT_ONCE
                    && let Some(done) = self.running.join_next().await
                {
                    self.finish(done).await?;
                }
                let plugin = Arc::clone(self.plugin);
                self.running
                    .spawn(async move { (stream, plugin.create(creation).await) });
                Ok(())
            }
        }
    }

    async fn send(&mut self, stream: u32, answer: Result<Vec<u8>, Failure>) -> Result<(), Error> {
        self.write(PLUGIN, &ttrpc::response(stream, answer)).await
    }

    async fn write(&mut self, conversation: u32, bytes: &[u8]) -> Result<(), Error> {
        let written = mux::write(&mut self.writer, conversation, bytes);
        tokio::time::timeout(SEND_LIMIT, written)
            .await
            .map_err(|_| Error::Silent {
                act: "take an answer",
                limit: SEND_LIMIT,
            })?
    }
}
