//! containerd's snapshots service over a snapshotter: translate, call, translate.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use containerd_snapshots as wire;
use containerd_snapshots::tonic;
use tokio_stream::Iter;

use super::convert::{field_of, info_out, labels_in, mounts_out, usage_out};
use super::filter::Filters;
use super::running::{Call, Running};
use super::{Acts, Error, Method, Options};
use crate::snapshot;

/// One snapshotter name, as containerd sees it.
#[derive(Debug)]
pub(super) struct Service<A> {
    name: Arc<str>,
    acts: Arc<A>,
    options: Options,
    running: Running,
}

impl<A: Acts> Service<A> {
    pub(super) fn new(name: &str, acts: Arc<A>, options: Options, running: Running) -> Self {
        Self {
            name: name.into(),
            acts,
            options,
            running,
        }
    }

    async fn run<T, F>(
        &self,
        method: Method,
        key: String,
        act: impl FnOnce(Arc<A>, String) -> F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, snapshot::Error>> + Send + 'static,
    {
        let act = act(Arc::clone(&self.acts), key.clone());
        let limit = method.limit(&self.options);
        let call = Call { method, key, limit };
        self.running.run(&self.name, call, act).await
    }
}

type Mounts = Vec<wire::api::types::Mount>;
type Labels = HashMap<String, String>;

#[tonic::async_trait]
impl<A: Acts> wire::Snapshotter for Service<A> {
    type Error = Error;
    type InfoStream = Iter<std::vec::IntoIter<Result<wire::Info, Error>>>;

    async fn stat(&self, key: String) -> Result<wire::Info, Error> {
        let act = |acts: Arc<A>, key: String| async move { acts.stat(&key).await };
        self.run(Method::Stat, key, act).await.map(info_out)
    }

    async fn update(
        &self,
        info: wire::Info,
        paths: Option<Vec<String>>,
    ) -> Result<wire::Info, Error> {
        // Everything but the labels is ignored, as containerd does.
        let (key, labels) = (info.name, labels_in(info.labels));
        let act = |acts: Arc<A>, key: String| async move { acts.update(&key, labels, paths).await };
        self.run(Method::Update, key, act).await.map(info_out)
    }

    async fn usage(&self, key: String) -> Result<wire::Usage, Error> {
        let act = |acts: Arc<A>, key: String| async move { acts.usage(&key).await };
        self.run(Method::Usage, key, act).await.map(usage_out)
    }

    async fn mounts(&self, key: String) -> Result<Mounts, Error> {
        let act = |acts: Arc<A>, key: String| async move { acts.mounts(&key).await };
        self.run(Method::Mounts, key, act).await.map(mounts_out)
    }

    async fn prepare(&self, key: String, parent: String, labels: Labels) -> Result<Mounts, Error> {
        let labels = labels_in(labels);
        let act =
            |acts: Arc<A>, key: String| async move { acts.prepare(&key, &parent, labels).await };
        self.run(Method::Prepare, key, act).await.map(mounts_out)
    }

    async fn view(&self, key: String, parent: String, labels: Labels) -> Result<Mounts, Error> {
        let labels = labels_in(labels);
        let act = |acts: Arc<A>, key: String| async move { acts.view(&key, &parent, labels).await };
        self.run(Method::View, key, act).await.map(mounts_out)
    }

    async fn commit(&self, name: String, key: String, labels: Labels) -> Result<(), Error> {
        let labels = labels_in(labels);
        let act = |acts: Arc<A>, key: String| async move { acts.commit(&name, &key, labels).await };
        self.run(Method::Commit, key, act).await
    }

    async fn remove(&self, key: String) -> Result<(), Error> {
        let act = |acts: Arc<A>, key: String| async move { acts.remove(&key).await };
        self.run(Method::Remove, key, act).await
    }

    async fn clear(&self) -> Result<(), Error> {
        let act = |acts: Arc<A>, _| async move { acts.cleanup().await };
        self.run(Method::Cleanup, String::new(), act).await
    }

    /// Every snapshot that a filter lets through, as of one moment: nothing is held while they are sent,
    /// so a client may ask for each in between, stop reading, or go away.
    ///
    /// `_snapshotter` is what containerd's configuration calls us: the socket already says who is meant.
    async fn list(
        &self,
        _snapshotter: String,
        filters: Vec<String>,
    ) -> Result<Self::InfoStream, Error> {
        let filters = Filters::parse(&filters)?;
        let act = |acts: Arc<A>, _| async move { acts.list().await };
        let mut infos = self.run(Method::List, String::new(), act).await?;
        infos.retain(|info| filters.matches(|field| field_of(info, field)));
        let infos: Vec<_> = infos.into_iter().map(|info| Ok(info_out(info))).collect();
        Ok(tokio_stream::iter(infos))
    }
}
