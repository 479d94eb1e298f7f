//! Limits in words, for operators.

use std::{fmt, time::Duration};

use super::{Count, OnExceeded, Period, UsageLimit};

/// `1000 tokens in 1m, cut; 5.25 USD each Day; 8 at the same time; for each Principal and Model`.
impl fmt::Display for UsageLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut numbers = Vec::new();
        if let Some(tokens) = &self.tokens {
            let kind = match tokens.count {
                Count::Total => "",
                Count::Input => "input ",
                Count::Output => "output ",
            };
            numbers.push(format!("{} {kind}tokens {}", tokens.limit, tokens.period));
        }
        if let Some(requests) = &self.requests {
            let burst = requests.burst.map(|burst| format!(", {burst} at once"));
            let burst = burst.unwrap_or_default();
            numbers.push(format!(
                "{} requests {}{burst}",
                requests.limit, requests.period
            ));
        }
        if let Some(cost) = &self.cost {
            let (usd, micro) = (cost.limit / 1_000_000, cost.limit % 1_000_000);
            let micro = format!("{micro:06}");
            let cents = match micro.trim_end_matches('0') {
                digits if digits.len() > 2 => digits,
                _ => micro.get(..2).unwrap_or_default(),
            };
            numbers.push(format!("{usd}.{cents} USD {}", cost.period));
        }
        if let Some(most) = self.concurrency {
            numbers.push(format!("{most} at the same time"));
        }
        f.write_str(&numbers.join("; "))?;
        if self.on_exceeded == OnExceeded::Cut {
            f.write_str("; streams are cut")?;
        }
        if let Some((last, others)) = self.per.split_last() {
            f.write_str("; for each ")?;
            for (number, dimension) in others.iter().enumerate() {
                let comma = if number == 0 { "" } else { ", " };
                write!(f, "{comma}{dimension}")?;
            }
            let and = if others.is_empty() { "" } else { " and " };
            write!(f, "{and}{last}")?;
        }
        Ok(())
    }
}

/// `in 1m30s`, `each Day`.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let window = match self {
            Self::Calendar(calendar) => return write!(f, "each {}", calendar.as_str()),
            Self::Window(window) => *window,
        };
        f.write_str("in ")?;
        let seconds = window.as_secs();
        for (number, unit) in [
            (seconds / 3600, "h"),
            (seconds / 60 % 60, "m"),
            (seconds % 60, "s"),
            (u64::from(window.subsec_millis()), "ms"),
        ] {
            if number > 0 || (unit == "s" && window < Duration::from_millis(1)) {
                write!(f, "{number}{unit}")?;
            }
        }
        Ok(())
    }
}
