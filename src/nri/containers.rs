//! Whose container is it: what Kubernetes calls the container behind a snapshot's key.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// The containerd namespace that CRI works in: NRI speaks of no other.
pub const NAMESPACE: &str = "k8s.io";

/// A container, in Kubernetes' words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// Its name in the pod.
    pub name: String,
    /// The pod's id.
    pub(super) sandbox: String,
}

/// The node's containers by id, as containerd told of them last.
///
/// In memory only: containerd tells all of them anew when it, or we, come back.
#[derive(Debug, Default)]
pub struct Containers {
    known: Mutex<HashMap<String, Container>>,
    current: AtomicBool,
}

impl Containers {
    /// A container by its id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Container> {
        self.change(|known| known.get(id).cloned())
    }

    /// The container of a snapshot, by the key that containerd gave us.
    #[must_use]
    pub fn of_key(&self, key: &str) -> Option<Container> {
        match container_of(key) {
            Some((NAMESPACE, id)) => self.get(id),
            _ => None,
        }
    }

    /// Does containerd tell of every change now? Else this is what was, and no pod's wish is heard.
    #[must_use]
    pub fn are_current(&self) -> bool {
        self.current.load(Ordering::Relaxed)
    }

    /// How many are known.
    #[must_use]
    pub fn count(&self) -> usize {
        self.change(|known| known.len())
    }

    pub(super) fn add(&self, id: String, container: Container) {
        self.change(|known| known.insert(id, container));
    }

    pub(super) fn remove(&self, id: &str) {
        self.change(|known| known.remove(id));
    }

    /// A pod is gone, and all that was in it.
    pub(super) fn remove_pod(&self, sandbox: &str) {
        self.change(|known| known.retain(|_, container| container.sandbox != sandbox));
    }

    /// These are all there are, and every change is told from now on.
    pub(super) fn replace(&self, all: HashMap<String, Container>) {
        self.change(|known| *known = all);
        self.current.store(true, Ordering::Relaxed);
    }

    /// Nobody tells us any more.
    pub(super) fn lost(&self) {
        self.current.store(false, Ordering::Relaxed);
    }

    fn change<T>(&self, act: impl FnOnce(&mut HashMap<String, Container>) -> T) -> T {
        act(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The containerd namespace and the container's id in a snapshot's key, as containerd makes keys of them:
/// `k8s.io/37/8f3a...`.
#[must_use]
pub fn container_of(key: &str) -> Option<(&str, &str)> {
    let (namespace, rest) = key.split_once('/')?;
    let (number, id) = rest.split_once('/')?;
    let counted = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (counted && !id.is_empty()).then_some((namespace, id))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{Container, Containers, container_of};

    fn container(sandbox: &str, name: &str) -> Container {
        Container {
            namespace: "shop".to_owned(),
            pod: "cart-0".to_owned(),
            name: name.to_owned(),
            sandbox: sandbox.to_owned(),
        }
    }

    #[test]
    fn keys_are_read_as_containerd_makes_them() {
        let table = [
            ("k8s.io/37/8f3a", Some(("k8s.io", "8f3a"))),
            ("default/1/web", Some(("default", "web"))),
            (
                "k8s.io/40/extract-1 sha256:ab",
                Some(("k8s.io", "extract-1 sha256:ab")),
            ),
            ("default/2//a/path", Some(("default", "/a/path"))),
            ("k8s.io/x/8f3a", None),
            ("k8s.io//8f3a", None),
            ("k8s.io/37/", None),
            ("8f3a", None),
            ("", None),
        ];
        for (key, expected) in table {
            assert_eq!(container_of(key), expected, "{key}");
        }
    }

    #[test]
    fn a_snapshot_leads_to_its_container() {
        let containers = Containers::default();
        containers.add("8f3a".to_owned(), container("p1", "db"));
        assert_eq!(containers.of_key("k8s.io/37/8f3a").unwrap().name, "db");
        // Another namespace's ids are other containers.
        assert_eq!(containers.of_key("default/37/8f3a"), None);
        containers.remove("8f3a");
        assert_eq!(containers.of_key("k8s.io/37/8f3a"), None);
    }

    #[test]
    fn a_pod_goes_with_its_containers() {
        let containers = Containers::default();
        for (id, sandbox) in [("a", "p1"), ("b", "p1"), ("c", "p2")] {
            containers.add(id.to_owned(), container(sandbox, id));
        }
        containers.remove_pod("p1");
        assert_eq!(
            (containers.count(), containers.get("c").is_some()),
            (1, true)
        );
        containers.replace(HashMap::new());
        assert_eq!(containers.count(), 0);
    }
}
