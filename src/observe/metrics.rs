//! Everyone's numbers as Prometheus text.
//!
//! Calls are counted as they end. Everything else (snapshots, disks) is asked for when somebody looks:
//! a number that is copied every few seconds would be wrong most of the time, and dear.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Counter, CounterVec, Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec,
    IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use super::Error;
use super::spread::{Spread, Spreads};

/// How long a source may take before its numbers are left out.
const SOURCE_LIMIT: Duration = Duration::from_secs(2);

/// From half a millisecond to a minute: a Prepare is milliseconds, a time limit a minute.
const BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 60.0,
];

/// One call that ended.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// The name of the snapshotter that was called.
    pub snapshotter: &'a str,
    /// containerd's name for the call.
    pub method: &'static str,
    /// The gRPC code it ended with, `OK` for success.
    pub code: &'static str,
    /// How long the caller waited.
    pub took: Duration,
}

/// Does a number only grow?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until the process it counts in ends.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counted in steps; the counts only grow.
    Histogram,
}

/// One number, or many in steps.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A counter's or a gauge's.
    Number(f64),
    /// A histogram's.
    Spread(Spread),
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

/// One number, and what tells it from its sisters.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The values of the family's labels.
    pub labels: Vec<String>,
    /// The number.
    pub value: Value,
}

/// Numbers of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// What Prometheus calls it.
    pub name: &'static str,
    /// One sentence about it.
    pub help: &'static str,
    /// Does it only grow?
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// The numbers.
    pub samples: Vec<Sample>,
}

type Families = Pin<Box<dyn Future<Output = Vec<Family>> + Send>>;
type Source = Arc<dyn Fn() -> Families + Send + Sync>;

/// What has been counted, and whom to ask for the rest.
pub struct Metrics {
    registry: Registry,
    calls: IntCounterVec,
    seconds: HistogramVec,
    failed_sources: IntCounter,
    /// Held for moments only, never while a source answers.
    sources: Mutex<Vec<Source>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Nothing counted yet, but for the version of the program.
    ///
    /// # Errors
    /// Only if a name in this file is wrong.
    pub fn new(program: &str, version: &str) -> Result<Self, Error> {
        let registry = Registry::new();
        let about = IntGauge::with_opts(
            Opts::new("ploop_build_info", "Always 1: which program answers.")
                .const_label("program", program)
                .const_label("version", version),
        )?;
        about.set(1);
        let calls = IntCounterVec::new(
            Opts::new("ploop_calls_total", "Calls of containerd that ended."),
            &["snapshotter", "method", "code"],
        )?;
        let seconds = HistogramVec::new(
            HistogramOpts::new("ploop_call_seconds", "How long a call's answer took.")
                .buckets(BUCKETS.to_vec()),
            &["snapshotter", "method"],
        )?;
        let failed_sources = IntCounter::new(
            "ploop_metrics_sources_late_total",
            "Times that some numbers were left out because they did not come in time.",
        )?;
        let all: [Box<dyn Collector>; 4] = [
            Box::new(about),
            Box::new(calls.clone()),
            Box::new(seconds.clone()),
            Box::new(failed_sources.clone()),
        ];
        for one in all {
            registry.register(one)?;
        }
        Ok(Self {
            registry,
            calls,
            seconds,
            failed_sources,
            sources: Mutex::default(),
        })
    }

    /// Counts a call that ended.
    pub fn call(&self, call: &Call<'_>) {
        let labels = [call.snapshotter, call.method];
        let seconds: Histogram = self.seconds.with_label_values(&labels);
        seconds.observe(call.took.as_secs_f64());
        self.calls
            .with_label_values(&[call.snapshotter, call.method, call.code])
            .inc();
    }

    /// Adds someone to ask whenever somebody looks.
    pub fn source<F>(&self, source: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = Vec<Family>> + Send + 'static,
    {
        let source: Source = Arc::new(move || Box::pin(source()));
        self.sources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(source);
    }

    /// Everything, as Prometheus reads it.
    ///
    /// # Errors
    /// If two sources use one name, or a source a label that it did not announce.
    pub async fn text(&self) -> Result<String, Error> {
        let sources = {
            let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
            sources.clone()
        };
        let asked = sources
            .iter()
            .map(|source| tokio::time::timeout(SOURCE_LIMIT, source()));
        let asked = futures_util::future::join_all(asked).await;
        let fresh = Registry::new();
        for answer in asked {
            match answer {
                Ok(families) => {
                    for family in &families {
                        fresh.register(collector(family)?)?;
                    }
                }
                Err(_) => self.failed_sources.inc(),
            }
        }
        let mut text = Vec::new();
        let encoder = TextEncoder::new();
        encoder.encode(&self.registry.gather(), &mut text)?;
        encoder.encode(&fresh.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

fn collector(family: &Family) -> Result<Box<dyn Collector>, Error> {
    let options = Opts::new(family.name, family.help);
    let labels = |sample: &Sample| -> Vec<String> { sample.labels.clone() };
    Ok(match family.kind {
        Kind::Counter => {
            let all = CounterVec::new(options, family.labels)?;
            for sample in &family.samples {
                let one: Counter = all.get_metric_with_label_values(&labels(sample))?;
                one.inc_by(plain(family, sample)?);
            }
            Box::new(all)
        }
        Kind::Gauge => {
            let all = GaugeVec::new(options, family.labels)?;
            for sample in &family.samples {
                let one: Gauge = all.get_metric_with_label_values(&labels(sample))?;
                one.set(plain(family, sample)?);
            }
            Box::new(all)
        }
        Kind::Histogram => Box::new(Spreads::new(family)?),
    })
}

fn plain(family: &Family, sample: &Sample) -> Result<f64, prometheus::Error> {
    match sample.value {
        Value::Number(number) => Ok(number),
        Value::Spread(_) => {
            let name = family.name;
            Err(prometheus::Error::Msg(format!("{name} is no histogram")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Call, Family, Kind, Metrics, Sample, Spread, Value};

    fn snapshots(value: f64) -> Family {
        Family {
            name: "ploop_snapshots",
            help: "Snapshots.",
            kind: Kind::Gauge,
            labels: &["snapshotter", "kind"],
            samples: vec![Sample {
                labels: vec!["ploop".to_owned(), "active".to_owned()],
                value: value.into(),
            }],
        }
    }

    #[tokio::test]
    async fn calls_and_sources_become_text() {
        let metrics = Metrics::new("test", "1.2").unwrap();
        let call = |method, code, millis| Call {
            snapshotter: "ploop",
            method,
            code,
            took: Duration::from_millis(millis),
        };
        metrics.call(&call("Prepare", "OK", 4));
        metrics.call(&call("Prepare", "OK", 70_000));
        metrics.call(&call("Remove", "NOT_FOUND", 1));
        metrics.source(|| async { vec![snapshots(3.0)] });
        metrics.source(std::future::pending);
        let text = metrics.text().await.unwrap();
        for line in [
            "ploop_build_info{program=\"test\",version=\"1.2\"} 1",
            "ploop_calls_total{code=\"OK\",method=\"Prepare\",snapshotter=\"ploop\"} 2",
            "ploop_calls_total{code=\"NOT_FOUND\",method=\"Remove\",snapshotter=\"ploop\"} 1",
            "ploop_call_seconds_bucket{method=\"Prepare\",snapshotter=\"ploop\",le=\"0.005\"} 1",
            "ploop_call_seconds_bucket{method=\"Prepare\",snapshotter=\"ploop\",le=\"60\"} 1",
            "ploop_call_seconds_count{method=\"Prepare\",snapshotter=\"ploop\"} 2",
            "ploop_snapshots{kind=\"active\",snapshotter=\"ploop\"} 3",
            "ploop_metrics_sources_late_total 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n---\n{text}");
        }
    }

    #[tokio::test]
    async fn what_others_counted_in_steps_becomes_a_histogram() {
        let family = |value: Value| Family {
            name: "ploop_x_seconds",
            help: "Times.",
            kind: Kind::Histogram,
            labels: &["op", "disk"],
            samples: vec![Sample {
                labels: vec!["read".to_owned(), "s1".to_owned()],
                value,
            }],
        };
        let spread = Value::Spread(Spread {
            steps: vec![(0.001, 2), (0.5, 3)],
            more: 1,
            sum: 4.25,
        });
        let metrics = Metrics::new("test", "1").unwrap();
        metrics.source(move || std::future::ready(vec![family(spread.clone())]));
        let text = metrics.text().await.unwrap();
        for line in [
            "# TYPE ploop_x_seconds histogram",
            "ploop_x_seconds_bucket{disk=\"s1\",op=\"read\",le=\"0.001\"} 2",
            "ploop_x_seconds_bucket{disk=\"s1\",op=\"read\",le=\"0.5\"} 5",
            "ploop_x_seconds_bucket{disk=\"s1\",op=\"read\",le=\"+Inf\"} 6",
            "ploop_x_seconds_sum{disk=\"s1\",op=\"read\"} 4.25",
            "ploop_x_seconds_count{disk=\"s1\",op=\"read\"} 6",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n---\n{text}");
        }
        let metrics = Metrics::new("test", "1").unwrap();
        metrics.source(move || std::future::ready(vec![family(1.0.into())]));
        assert!(metrics.text().await.is_err());
    }

    #[tokio::test]
    async fn numbers_that_contradict_each_other_are_an_error() {
        let metrics = Metrics::new("test", "1").unwrap();
        metrics.source(|| async { vec![snapshots(1.0), snapshots(2.0)] });
        assert!(metrics.text().await.is_err());
        let metrics = Metrics::new("test", "1").unwrap();
        metrics.source(|| async {
            let mut family = snapshots(1.0);
            family.samples[0].labels.pop();
            vec![family]
        });
        assert!(metrics.text().await.is_err());
    }
}
