//! Metrics in Prometheus text form.

/// A page of metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// The page as it came.
    pub text: String,
}

impl Metrics {
    pub(super) fn new(text: String) -> Self {
        Self { text }
    }

    /// The sum of every sample of a name whose labels include these.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let samples = self.text.lines().filter_map(|line| {
            let (key, value) = line.rsplit_once(' ')?;
            let (held, rest) = key.split_once('{').unwrap_or((key, ""));
            let matches = labels
                .iter()
                .all(|(label, wanted)| rest.contains(&format!("{label}=\"{wanted}\"")));
            (held == name && matches).then(|| value.parse::<f64>().ok())?
        });
        samples.sum()
    }
}
