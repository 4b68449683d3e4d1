//! Which build of `ploopd` this process runs, so that a client sees whether another is installed.

use std::path::Path;

use tokio::sync::OnceCell;

use super::serve::blocking;
use crate::program::{OWN, build_of};

/// Found out when somebody asks first: a server that takes over has more urgent things to read.
#[derive(Debug, Default)]
pub(super) struct Build(OnceCell<String>);

impl Build {
    /// The build; empty if our own program cannot be read.
    pub(super) async fn name(&self) -> &str {
        self.0
            .get_or_init(|| async {
                match blocking("reading our program", || build_of(Path::new(OWN))).await {
                    Ok(Ok(build)) => build,
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "cannot read our own program: an upgrade will look like another one");
                        String::new()
                    }
                    Err(_) => String::new(),
                }
            })
            .await
    }
}
