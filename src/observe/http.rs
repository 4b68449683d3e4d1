//! The small HTTP door: `/metrics`, `/healthz`, `/readyz`, on a TCP address or a unix socket.
//!
//! It reads nothing but the first line of a request, answers once, and closes: a scraper that hangs
//! costs one task for a few seconds.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::Http;
use hyper::service::service_fn;
use hyper::{Body, Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

use super::{Error, Health, Metrics};
use crate::socket::{LONGEST_PATH, Socket};

/// How long one connection may last.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);

/// Where the door is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// A unix socket, for root only.
    Unix(PathBuf),
}

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no address: write an IP address with a port, such as 127.0.0.1:9180, or an absolute path"
)]
pub struct BadAddress(String);

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        if text.starts_with('/') && text.len() <= LONGEST_PATH {
            return Ok(Self::Unix(PathBuf::from(text)));
        }
        text.parse()
            .map(Self::Tcp)
            .map_err(|_| BadAddress(text.to_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The door, open until it is dropped.
#[derive(Debug)]
pub struct Door {
    address: Address,
    task: JoinHandle<()>,
    _socket: Option<Socket>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Door {
    /// Opens the door.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub async fn open(
        address: &Address,
        metrics: Arc<Metrics>,
        health: Health,
    ) -> Result<Self, Error> {
        let (listener, address, socket) = match address {
            Address::Tcp(wanted) => {
                let failed = |source| Error::Listen {
                    address: *wanted,
                    source,
                };
                let listener = TcpListener::bind(wanted).await.map_err(failed)?;
                let bound = listener.local_addr().map_err(failed)?;
                (Listener::Tcp(listener), Address::Tcp(bound), None)
            }
            Address::Unix(path) => {
                let (socket, listener) = Socket::bind(path)?;
                let listener = UnixListener::from_std(listener).map_err(|source| {
                    Error::Socket(crate::socket::Error::Host {
                        act: "listen at",
                        path: path.clone(),
                        source,
                    })
                })?;
                (Listener::Unix(listener), address.clone(), Some(socket))
            }
        };
        let task = tokio::spawn(accept(listener, metrics, health));
        Ok(Self {
            address,
            task,
            _socket: socket,
        })
    }

    /// Where it is; the port is a real one even if 0 was asked for.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }
}

async fn accept(listener: Listener, metrics: Arc<Metrics>, health: Health) {
    loop {
        let accepted = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                tokio::spawn(serve(stream, Arc::clone(&metrics), health.clone()));
            }),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                tokio::spawn(serve(stream, Arc::clone(&metrics), health.clone()));
            }),
        };
        if let Err(error) = accepted {
            // No descriptor left, most likely: it would fail again at once.
            tracing::warn!(%error, "cannot take a connection for metrics");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

async fn serve<S>(stream: S, metrics: Arc<Metrics>, health: Health)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let (metrics, health) = (Arc::clone(&metrics), health.clone());
        async move { Ok::<_, Infallible>(answer(&request, &metrics, &health).await) }
    });
    let mut http = Http::new();
    http.http1_only(true).http1_keep_alive(false);
    let connection = http.serve_connection(stream, service);
    if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_LIMIT, connection).await {
        tracing::debug!(%error, "a connection for metrics broke");
    }
}

async fn answer(request: &Request<Body>, metrics: &Metrics, health: &Health) -> Response<Body> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "alive\n"),
        "/readyz" => match health.ready().await {
            Ok(remarks) => text(
                StatusCode::OK,
                [vec!["ready".to_owned()], remarks].concat().join("\n") + "\n",
            ),
            Err(reasons) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{}\n", reasons.join("\n")),
            ),
        },
        "/metrics" => match metrics.text().await {
            Ok(words) => text(StatusCode::OK, words),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        _ => text(
            StatusCode::NOT_FOUND,
            "there is /metrics, /healthz and /readyz\n",
        ),
    }
}

fn text(status: StatusCode, words: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(words.into());
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4");
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpStream, UnixStream};

    use super::super::{Health, Metrics, State};
    use super::{Address, Door};

    async fn ask(address: &Address, request: &str) -> String {
        let mut answer = String::new();
        match address {
            Address::Tcp(address) => {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(request.as_bytes()).await.unwrap();
                stream.read_to_string(&mut answer).await.unwrap();
            }
            Address::Unix(path) => {
                let mut stream = UnixStream::connect(path).await.unwrap();
                stream.write_all(request.as_bytes()).await.unwrap();
                stream.read_to_string(&mut answer).await.unwrap();
            }
        }
        answer
    }

    #[tokio::test]
    async fn the_door_answers_on_both_kinds_of_address() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("metrics.sock");
        for address in ["127.0.0.1:0", path.to_str().unwrap()] {
            let health = Health::default();
            let metrics = Arc::new(Metrics::new("test", "1").unwrap());
            let address = address.parse().unwrap();
            let door = Door::open(&address, metrics, health.clone()).await.unwrap();
            let get = async |path: &str| {
                ask(door.address(), &format!("GET {path} HTTP/1.0\r\n\r\n")).await
            };
            assert!(get("/healthz").await.starts_with("HTTP/1.0 200"));
            let starting = get("/readyz").await;
            assert!(starting.starts_with("HTTP/1.0 503"), "{starting}");
            assert!(starting.ends_with("\r\n\r\nstarting\n"), "{starting}");
            health.set(State::Ready);
            assert!(get("/readyz").await.ends_with("\r\n\r\nready\n"));
            health.remark("space", || async { Err("none".to_owned()) });
            let remarked = get("/readyz").await;
            assert!(remarked.starts_with("HTTP/1.0 200"), "{remarked}");
            assert!(
                remarked.ends_with("\r\n\r\nready\nspace: none\n"),
                "{remarked}"
            );
            assert!(get("/metrics").await.contains("ploop_build_info{"));
            assert!(get("/other").await.starts_with("HTTP/1.0 404"));
            let post = "POST /metrics HTTP/1.0\r\n\r\n";
            assert!(ask(door.address(), post).await.starts_with("HTTP/1.0 405"));
        }
        assert!(!path.exists(), "the socket goes with the door");
    }

    #[test]
    fn addresses_are_read_as_written_and_nothing_else() {
        for good in ["127.0.0.1:9180", "[::]:9180", "/run/x/metrics.sock"] {
            assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
        }
        let long = format!("/{}", "x".repeat(200));
        for bad in ["", ":9180", "localhost", "9180", "run/x.sock", &long] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
