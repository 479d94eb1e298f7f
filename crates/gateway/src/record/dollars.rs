//! Counters of money: whole micro-USD inside, USD where they are shown, so that no sum drifts.

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, MetricFamily};
use prometheus::{IntCounterVec, Opts};

/// A family of counters of micro-USD that is shown in USD.
#[derive(Debug, Clone)]
pub(super) struct Dollars(IntCounterVec);

impl Dollars {
    pub(super) fn new(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<Self> {
        IntCounterVec::new(Opts::new(name, help), labels).map(Self)
    }

    /// The counter with these labels, in micro-USD.
    pub(super) fn with_label_values(&self, labels: &[&str]) -> prometheus::IntCounter {
        self.0.with_label_values(labels)
    }
}

impl Collector for Dollars {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.0.collect();
        let metrics = families.iter_mut().flat_map(|family| family.mut_metric());
        for metric in metrics {
            let mut dollars = Counter::default();
            dollars.set_value(metric.get_counter().get_value() / 1e6);
            metric.set_counter(dollars);
        }
        families
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder, Registry, TextEncoder};

    use super::*;

    #[test]
    fn sums_are_exact() {
        let spent = Dollars::new("spent_usd_total", "Money.", &["who"]).unwrap();
        let registry = Registry::new();
        registry.register(Box::new(spent.clone())).unwrap();
        // As floating-point numbers of USD these would make 0.30000000000000004 and worse.
        for micro in [100_000, 200_000, 1] {
            spent.with_label_values(&["ann"]).inc_by(micro);
        }
        spent.with_label_values(&["bob"]).inc_by(0);
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&registry.gather(), &mut text)
            .unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "# HELP spent_usd_total Money.\n# TYPE spent_usd_total counter\n\
             spent_usd_total{who=\"ann\"} 0.300001\nspent_usd_total{who=\"bob\"} 0\n"
        );
    }
}
