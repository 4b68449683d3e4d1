//! Connects to containerd, and again when it was away.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::Error;
use super::containers::Containers;
use super::plugin::Plugin;
use super::session::{Ended, serve};
use super::sizes::Sizes;
use crate::causes::in_full;

/// The first pause before another try; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest. A pod that a new containerd starts before we are there has a disk of the default size.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// A connection that lasted this long was a good one: the next try may come soon.
const GOOD: Duration = Duration::from_secs(10);

/// Where containerd's NRI is, and who we are there.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its socket.
    pub socket: PathBuf,
    /// Our name: what a pod's annotation `required-plugins.noderesource.dev` can name.
    pub name: String,
    /// Our place among the plugins: two digits.
    pub index: String,
}

impl Options {
    /// Where containerd listens if it is not told otherwise.
    pub const USUAL_SOCKET: &str = "/var/run/nri/nri.sock";

    /// A plugin at this socket.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            name: "ploop-snapshotter".to_owned(),
            index: "10".to_owned(),
        }
    }
}

/// The plugin at work; dropping it takes leave of containerd.
#[derive(Debug)]
pub struct Connected {
    task: JoinHandle<()>,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts it. Nobody waits for it, and nothing depends on it: where there is no NRI, sizes come by other ways.
pub fn connect<S: Sizes>(options: Options, sizes: S, containers: Arc<Containers>) -> Connected {
    let plugin = Arc::new(Plugin { sizes, containers });
    let task = tokio::spawn(async move {
        let mut pause = FIRST_PAUSE;
        let mut said = Said::default();
        loop {
            let begun = Instant::now();
            let ended = once(&options, &plugin).await;
            said.say(&options.socket, &ended);
            if ended.worked && begun.elapsed() >= GOOD {
                pause = FIRST_PAUSE;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    });
    Connected { task }
}

async fn once<S: Sizes>(options: &Options, plugin: &Arc<Plugin<S>>) -> Ended {
    let path = &options.socket;
    match UnixStream::connect(path).await {
        Ok(trunk) => serve(plugin, options, trunk).await,
        Err(source) => {
            let path = path.clone();
            let reason = match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    Error::Absent { path }
                }
                _ => Error::Connect { path, source },
            };
            Ended {
                worked: false,
                reason,
            }
        }
    }
}

/// What was said last: the same once is enough.
#[derive(Default)]
struct Said {
    last: Option<String>,
}

impl Said {
    fn say(&mut self, socket: &Path, ended: &Ended) {
        let socket = socket.display();
        let words = in_full(&ended.reason);
        let new = ended.worked || self.last.as_ref() != Some(&words);
        match &ended.reason {
            _ if !new => tracing::debug!(%socket, reason = words, "still no NRI"),
            Error::Absent { .. } => {
                tracing::info!(%socket, reason = words, "no NRI: pods' annotations set no sizes");
            }
            _ => tracing::warn!(%socket, reason = words, "NRI is lost; trying again"),
        }
        // After a connection that worked the next reason is news, whatever it is.
        self.last = (!ended.worked).then_some(words);
    }
}

#[cfg(test)]
#[path = "connect_tests.rs"]
mod tests;
