//! What the door asks of a snapshotter.
//!
//! A trait, because there are two: the real one, and the double of this room's tests, which hangs and
//! fails as it is told to.

use std::future::Future;

use crate::snapshot::{Error, Info, Labels, Mount, Snapshotter, Usage};

/// containerd's calls in our words; see [`Snapshotter`] for what each does.
#[expect(missing_docs, reason = "named and explained by Snapshotter's methods")]
pub trait Acts: Send + Sync + 'static {
    fn stat(&self, key: &str) -> impl Future<Output = Result<Info, Error>> + Send;

    fn update(
        &self,
        key: &str,
        labels: Labels,
        paths: Option<Vec<String>>,
    ) -> impl Future<Output = Result<Info, Error>> + Send;

    fn usage(&self, key: &str) -> impl Future<Output = Result<Usage, Error>> + Send;

    fn mounts(&self, key: &str) -> impl Future<Output = Result<Vec<Mount>, Error>> + Send;

    fn prepare(
        &self,
        key: &str,
        parent: &str,
        labels: Labels,
    ) -> impl Future<Output = Result<Vec<Mount>, Error>> + Send;

    fn view(
        &self,
        key: &str,
        parent: &str,
        labels: Labels,
    ) -> impl Future<Output = Result<Vec<Mount>, Error>> + Send;

    fn commit(
        &self,
        name: &str,
        key: &str,
        labels: Labels,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    fn remove(&self, key: &str) -> impl Future<Output = Result<(), Error>> + Send;

    fn cleanup(&self) -> impl Future<Output = Result<(), Error>> + Send;

    fn list(&self) -> impl Future<Output = Result<Vec<Info>, Error>> + Send;
}

impl Acts for Snapshotter {
    async fn stat(&self, key: &str) -> Result<Info, Error> {
        self.stat(key).await
    }

    async fn update(
        &self,
        key: &str,
        labels: Labels,
        paths: Option<Vec<String>>,
    ) -> Result<Info, Error> {
        self.update(key, labels, paths).await
    }

    async fn usage(&self, key: &str) -> Result<Usage, Error> {
        self.usage(key).await
    }

    async fn mounts(&self, key: &str) -> Result<Vec<Mount>, Error> {
        self.mounts(key).await
    }

    async fn prepare(&self, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>, Error> {
        self.prepare(key, parent, labels).await
    }

    async fn view(&self, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>, Error> {
        self.view(key, parent, labels).await
    }

    async fn commit(&self, name: &str, key: &str, labels: Labels) -> Result<(), Error> {
        self.commit(name, key, labels).await
    }

    async fn remove(&self, key: &str) -> Result<(), Error> {
        self.remove(key).await
    }

    async fn cleanup(&self) -> Result<(), Error> {
        self.cleanup().await
    }

    async fn list(&self) -> Result<Vec<Info>, Error> {
        self.list().await
    }
}
