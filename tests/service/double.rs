//! A snapshotter that does what its keys say: hang, panic, fail.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use ploop_snapshotter::service::Acts;
use ploop_snapshotter::snapshot::{Caller, Error, Info, Kind, Labels, Mount, Usage};
use ploop_snapshotter::{link, store};
use tokio::sync::Semaphore;

/// What an update carried: the key, the labels, the mask.
pub(super) type Update = (String, Labels, Option<Vec<String>>);

pub(super) struct Double {
    pub(super) infos: Vec<Info>,
    /// Acts on keys that start with "hang" wait here, and when they are decided those with "decided".
    pub(super) gate: Semaphore,
    pub(super) begun: AtomicUsize,
    pub(super) ended: AtomicUsize,
    /// Those whose callers had not given up.
    pub(super) done: AtomicUsize,
    pub(super) updates: Mutex<Vec<Update>>,
    pub(super) keys: Mutex<Vec<String>>,
}

impl Default for Double {
    fn default() -> Self {
        Self {
            infos: Vec::new(),
            gate: Semaphore::new(0),
            begun: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            updates: Mutex::default(),
            keys: Mutex::default(),
        }
    }
}

pub(super) fn info(name: &str, labels: &[(&str, &str)]) -> Info {
    Info {
        name: name.to_owned(),
        parent: "a parent".to_owned(),
        kind: Kind::Active,
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        created: SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789),
        updated: SystemTime::UNIX_EPOCH - Duration::new(5, 1),
    }
}

fn file(kind: io::ErrorKind) -> Error {
    Error::File {
        act: "write",
        path: "/root/deltas/s1.hds".into(),
        source: io::Error::from(kind),
    }
}

fn disk(source: link::Error) -> Error {
    Error::Disk {
        key: "k".to_owned(),
        act: "attach",
        disk: "s1".to_owned(),
        source: Box::new(source),
    }
}

/// The error that a key asks for.
fn failure(key: &str) -> Option<Error> {
    let key = key.to_owned();
    Some(match key.strip_prefix("fail ")? {
        "not found" => store::Error::NotFound { key }.into(),
        "parent not found" => store::Error::ParentNotFound { name: key }.into(),
        "exists" => store::Error::Exists { key }.into(),
        "parent not committed" => store::Error::ParentNotCommitted { name: key }.into(),
        "not active" => store::Error::NotActive { key }.into(),
        "has children" => store::Error::HasChildren {
            child: "c".to_owned(),
            key,
        }
        .into(),
        "empty" => Error::EmptyKey,
        "full" => file(io::ErrorKind::StorageFull),
        "broken file" => file(io::ErrorKind::Other),
        "missing" => Error::Missing {
            key,
            path: "/root/deltas/s1.hds".into(),
        },
        "no server" => disk(link::Error::Unavailable {
            socket: "/run/ploopd.sock".into(),
            reason: "refused".to_owned(),
        }),
        "server hangs" => disk(link::Error::Timeout {
            socket: "/run/ploopd.sock".into(),
            call: "Attach",
            limit: Duration::from_secs(20),
        }),
        other => panic!("no such failure: {other}"),
    })
}

impl Double {
    async fn act(&self, key: &str) -> Result<(), Error> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.keys.lock().unwrap().push(key.to_owned());
        if key.starts_with("hang") {
            self.gate.acquire().await.unwrap().forget();
        }
        assert!(!key.starts_with("panic"), "as asked for");
        let decided = Caller::decide(key);
        if key.starts_with("decided") {
            self.gate.acquire().await.unwrap().forget();
        }
        self.ended.fetch_add(1, Ordering::SeqCst);
        decided?;
        self.done.fetch_add(1, Ordering::SeqCst);
        failure(key).map_or(Ok(()), Err)
    }
}

impl Acts for Double {
    async fn stat(&self, key: &str) -> Result<Info, Error> {
        self.act(key).await?;
        Ok(info(key, &[]))
    }

    async fn update(
        &self,
        key: &str,
        labels: Labels,
        paths: Option<Vec<String>>,
    ) -> Result<Info, Error> {
        self.act(key).await?;
        let update = (key.to_owned(), labels, paths);
        self.updates.lock().unwrap().push(update);
        Ok(info(key, &[]))
    }

    async fn usage(&self, key: &str) -> Result<Usage, Error> {
        self.act(key).await?;
        Ok(Usage {
            bytes: 4096,
            inodes: 1,
        })
    }

    async fn mounts(&self, key: &str) -> Result<Vec<Mount>, Error> {
        self.act(key).await?;
        Ok(vec![Mount {
            kind: "ext4".to_owned(),
            source: "/dev/loop7".to_owned(),
            options: vec!["rw".to_owned(), "discard".to_owned()],
        }])
    }

    async fn prepare(&self, key: &str, _: &str, _: Labels) -> Result<Vec<Mount>, Error> {
        self.mounts(key).await
    }

    async fn view(&self, key: &str, _: &str, _: Labels) -> Result<Vec<Mount>, Error> {
        self.mounts(key).await
    }

    async fn commit(&self, _: &str, key: &str, _: Labels) -> Result<(), Error> {
        self.act(key).await
    }

    async fn remove(&self, key: &str) -> Result<(), Error> {
        self.act(key).await
    }

    async fn cleanup(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Info>, Error> {
        Ok(self.infos.clone())
    }
}
