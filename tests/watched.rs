//! Alerts and dashboard ask for what the daemons really count.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Every word that begins with `ploop_`.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = words.filter(|word| word.starts_with("ploop_"));
    ours.map(str::to_owned).collect()
}

#[test]
fn alerts_and_dashboard_know_only_what_is_counted() {
    let mut counted = BTreeSet::new();
    for file in [
        "src/observe/metrics.rs",
        "src/daemon/numbers.rs",
        "src/daemon/containers.rs",
    ] {
        let text = fs::read_to_string(at(file)).unwrap();
        // What is in quotes, and nothing else: a name as it is registered.
        let quoted = text.split('"').skip(1).step_by(2);
        counted.extend(
            quoted
                .filter(|word| word.starts_with("ploop_"))
                .map(str::to_owned),
        );
    }
    let dashboard = fs::read_to_string(at("deploy/grafana/dashboard.json")).unwrap();
    let parsed: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    assert!(parsed["panels"].as_array().unwrap().len() > 5);
    let rules = fs::read_to_string(at("deploy/prometheus/rules.yaml")).unwrap();
    for (file, text) in [("dashboard", dashboard), ("rules", rules)] {
        let asked = names(&text);
        assert!(asked.len() > 5, "{file}: {asked:?}");
        for name in asked {
            let base = name.strip_suffix("_bucket").unwrap_or(&name);
            assert!(counted.contains(base), "{file} asks for {name}");
        }
    }
}
