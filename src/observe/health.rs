//! Alive? Ready? And if not, why.
//!
//! Alive means that this process answers: nothing is asked of anybody else, so that a slow disk never
//! gets the process killed. Ready means that containerd's calls would be served now. What somebody
//! should see to although calls are served is a remark: it is said, and changes no verdict.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long one check may take before it counts as failed.
const CHECK_LIMIT: Duration = Duration::from_secs(2);

/// Where a daemon's life stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Recovering; the doors are still closed.
    Starting,
    /// Open.
    Ready,
    /// Going down in order.
    Stopping,
}

type Answer = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
type Check = Arc<dyn Fn() -> Answer + Send + Sync>;

#[derive(Debug)]
struct Shared {
    state: State,
    checks: Vec<Named>,
    remarks: Vec<Named>,
}

#[derive(Clone)]
struct Named {
    name: &'static str,
    check: Check,
}

impl std::fmt::Debug for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// A daemon's health; clones share it.
///
/// Its lock is held for moments only, never while a check runs.
#[derive(Clone, Debug)]
pub struct Health {
    shared: Arc<Mutex<Shared>>,
}

impl Default for Health {
    fn default() -> Self {
        let shared = Shared {
            state: State::Starting,
            checks: Vec::new(),
            remarks: Vec::new(),
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
        }
    }
}

impl Health {
    /// The daemon's life goes on.
    pub fn set(&self, state: State) {
        self.lock().state = state;
    }

    /// Adds something that must be well before the daemon is ready.
    pub fn check<F>(&self, name: &'static str, check: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let check: Check = Arc::new(move || Box::pin(check()));
        self.lock().checks.push(Named { name, check });
    }

    /// Adds something that is said where it is not well, but keeps nobody from being ready.
    pub fn remark<F>(&self, name: &'static str, check: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let check: Check = Arc::new(move || Box::pin(check()));
        self.lock().remarks.push(Named { name, check });
    }

    /// Ready, with one line for each remark; or everything that speaks against it.
    ///
    /// # Errors
    /// One line for each reason, then those of the remarks.
    pub async fn ready(&self) -> Result<Vec<String>, Vec<String>> {
        let (state, checks, remarks) = {
            let shared = self.lock();
            (shared.state, shared.checks.clone(), shared.remarks.clone())
        };
        match state {
            State::Starting => return Err(vec!["starting".to_owned()]),
            State::Stopping => return Err(vec!["stopping".to_owned()]),
            State::Ready => {}
        }
        let (mut reasons, remarks) =
            futures_util::future::join(unwell(&checks), unwell(&remarks)).await;
        if reasons.is_empty() {
            return Ok(remarks);
        }
        reasons.extend(remarks);
        Err(reasons)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks all of them at once: one line for each that is not well.
async fn unwell(asked: &[Named]) -> Vec<String> {
    let answers = asked.iter().map(|named| async {
        match tokio::time::timeout(CHECK_LIMIT, (named.check)()).await {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(format!("{}: {why}", named.name)),
            Err(_) => Some(format!("{}: no answer within {CHECK_LIMIT:?}", named.name)),
        }
    });
    let answers = futures_util::future::join_all(answers).await;
    answers.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::{Health, State};

    #[tokio::test]
    async fn ready_is_when_the_doors_are_open_and_every_check_is_well() {
        let health = Health::default();
        assert_eq!(health.ready().await, Err(vec!["starting".to_owned()]));
        health.set(State::Ready);
        assert_eq!(health.ready().await, Ok(vec![]));
        health.check("well", || async { Ok(()) });
        health.remark("space", || async { Err("none".to_owned()) });
        assert_eq!(health.ready().await, Ok(vec!["space: none".to_owned()]));
        health.check("disk server", || async { Err("gone".to_owned()) });
        health.check("slow", std::future::pending);
        assert_eq!(
            health.ready().await,
            Err(vec![
                "disk server: gone".to_owned(),
                "slow: no answer within 2s".to_owned(),
                "space: none".to_owned()
            ])
        );
        health.set(State::Stopping);
        assert_eq!(health.ready().await, Err(vec!["stopping".to_owned()]));
    }
}
