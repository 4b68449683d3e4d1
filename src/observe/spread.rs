//! Times that somebody else counted in steps, as Prometheus shows a histogram.

use std::collections::HashMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::metrics::{Family, Sample, Value};

/// What lies in which step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spread {
    /// The upper bound of each step, rising, and how many lie in it and above the step before.
    pub steps: Vec<(f64, u64)>,
    /// How many lie above them all.
    pub more: u64,
    /// The sum of everything.
    pub sum: f64,
}

/// The lines of a family of histograms.
pub(super) struct Spreads {
    desc: Desc,
    family: MetricFamily,
}

impl Spreads {
    pub(super) fn new(family: &Family) -> Result<Self, prometheus::Error> {
        let labels = family.labels.iter().map(|label| (*label).to_owned());
        let desc = Desc::new(
            family.name.to_owned(),
            family.help.to_owned(),
            labels.collect(),
            HashMap::new(),
        )?;
        let mut all = MetricFamily::default();
        all.set_name(family.name.to_owned());
        all.set_help(family.help.to_owned());
        all.set_field_type(MetricType::HISTOGRAM);
        let metrics: Result<Vec<_>, _> = family
            .samples
            .iter()
            .map(|sample| metric(family, sample))
            .collect();
        all.set_metric(metrics?);
        Ok(Self { desc, family: all })
    }
}

impl Collector for Spreads {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        vec![self.family.clone()]
    }
}

fn metric(family: &Family, sample: &Sample) -> Result<Metric, prometheus::Error> {
    if sample.labels.len() != family.labels.len() {
        return Err(prometheus::Error::InconsistentCardinality {
            expect: family.labels.len(),
            got: sample.labels.len(),
        });
    }
    let Value::Spread(spread) = &sample.value else {
        return Err(prometheus::Error::Msg(format!(
            "{} is counted in steps",
            family.name
        )));
    };
    let mut count = 0;
    let steps = spread.steps.iter().map(|(bound, more)| {
        count += more;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(count);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(steps.collect());
    histogram.set_sample_count(count + spread.more);
    histogram.set_sample_sum(spread.sum);
    // In the order of their names, as the text is.
    let mut pairs: Vec<_> = family.labels.iter().zip(&sample.labels).collect();
    pairs.sort();
    let labels = pairs.into_iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value.clone());
        pair
    });
    let mut metric = Metric::default();
    metric.set_label(labels.collect());
    metric.set_histogram(histogram);
    Ok(metric)
}
