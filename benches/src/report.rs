//! What was found, as a table.

use std::fmt::Write as _;

use crate::case::Case;
use crate::load::Latency;
use crate::run::Contender;

/// The samples of one contender in one case.
#[derive(Debug, Clone)]
pub struct Samples {
    /// Who.
    pub contender: Contender,
    /// CPU time per unit, in microseconds, by round.
    pub cpu: Vec<f64>,
    /// Units per second, by round.
    pub rate: Vec<f64>,
    /// At the fixed rate.
    pub latency: Option<Latency>,
    /// Resident memory after the rounds, in bytes.
    pub resident: u64,
}

impl Samples {
    /// No sample yet.
    #[must_use]
    pub fn new(contender: Contender) -> Self {
        Self {
            contender,
            cpu: Vec::new(),
            rate: Vec::new(),
            latency: None,
            resident: 0,
        }
    }
}

/// The middle of some values; NaN when there is none.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.get(sorted.len() / 2), sorted.len() % 2) {
        (None, _) => f64::NAN,
        (Some(value), 1) => *value,
        (Some(value), _) => (value + sorted[sorted.len() / 2 - 1]) / 2.0,
    }
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::min)
}

/// The heading of [`case_rows`].
#[must_use]
pub fn heading() -> String {
    format!(
        "{:<11} {:<8} {:>9} {:>20} {:>15} {:>8} {:>8} {:>9}  bound\n",
        "case",
        "who",
        "units/s",
        "CPU µs/unit med(min)",
        "×bare med(min)",
        "p50 µs",
        "p99 µs",
        "RSS MiB"
    )
}

/// The rows of one case, and whether its bound was kept.
///
/// The ratio is the median of the rounds' ratios: neighbours in time see the same machine.
#[must_use]
pub fn case_rows(case: Case, samples: &[Samples]) -> (String, bool) {
    let mut rows = String::new();
    let mut kept = true;
    let bare = samples
        .iter()
        .find(|other| other.contender == Contender::Bare);
    for own in samples {
        let ratio = bare.map(|bare| {
            let ratios: Vec<f64> = own
                .cpu
                .iter()
                .zip(&bare.cpu)
                .map(|(own, bare)| own / bare)
                .collect();
            (median(&ratios), least(&own.cpu) / least(&bare.cpu))
        });
        let ratio = ratio.filter(|_| own.contender == Contender::Gateway);
        let verdict = match (ratio, case.bound()) {
            _ if own.contender == Contender::Limited => added(own, samples),
            (Some((ratio, _)), Some(bound)) if ratio <= bound => format!("≤ {bound:.1} kept"),
            (Some(_), Some(bound)) => {
                kept = false;
                format!("≤ {bound:.1} OVER")
            }
            _ => String::new(),
        };
        let ratio = ratio.map_or(String::new(), |(median, least)| {
            format!("{median:.2} ({least:.2})")
        });
        let (p50, p99) = own
            .latency
            .map_or((f64::NAN, f64::NAN), |latency| (latency.p50, latency.p99));
        let cpu = format!("{:.1} ({:.1})", median(&own.cpu), least(&own.cpu));
        let _ = writeln!(
            rows,
            "{:<11} {:<8} {:>9.0} {cpu:>20} {ratio:>15} {p50:>8.0} {p99:>8.0} {:>9.1}  {verdict}",
            case.name(),
            own.contender.name(),
            median(&own.rate),
            own.resident as f64 / f64::from(1 << 20),
        );
    }
    (rows, kept)
}

/// What four limits add to a gateway without any.
fn added(own: &Samples, samples: &[Samples]) -> String {
    let mut all = samples.iter();
    let Some(plain) = all.find(|other| other.contender == Contender::Gateway) else {
        return String::new();
    };
    let pairs = own.cpu.iter().zip(&plain.cpu);
    let differences: Vec<f64> = pairs.map(|(own, plain)| own - plain).collect();
    format!("{:+.1} µs to gateway", median(&differences))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        for (values, expected) in [
            (&[3.0, 1.0, 2.0][..], 2.0),
            (&[4.0, 1.0, 2.0, 3.0], 2.5),
            (&[7.0], 7.0),
        ] {
            assert!(
                (median(values) - expected).abs() < f64::EPSILON,
                "{values:?}"
            );
        }
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn bounds() {
        for (own, kept) in [([11.0, 12.0, 13.0], true), ([12.1, 12.2, 9.0], false)] {
            let samples: Vec<Samples> = [(Contender::Bare, [10.0; 3]), (Contender::Gateway, own)]
                .map(|(contender, cpu)| Samples {
                    cpu: cpu.to_vec(),
                    ..Samples::new(contender)
                })
                .to_vec();
            assert_eq!(case_rows(Case::Chat1k, &samples).1, kept, "{own:?}");
        }
    }
}
