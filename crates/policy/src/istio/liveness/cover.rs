//! Whether all that one value, test or rule matches is matched by another.

use super::super::{Attribute, IstioRule, Test, TextMatch, Value};

#[cfg(test)]
mod tests;

/// Values that are compared with each other at most, for two lists of them.
const PAIRS_MAX: usize = 1 << 16;

impl IstioRule {
    /// Whether the other rule, one of DENY, matches whatever this one does. Neither has anything
    /// that cannot be evaluated.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        let side = |own: &Option<Vec<Vec<Test>>>, other: &Option<Vec<Vec<Test>>>| {
            let Some(other) = other.as_deref().filter(|other| !other.is_empty()) else {
                return true;
            };
            let own = self.alternatives(own);
            own.iter().all(|own| {
                let mut other = other.iter();
                other.any(|other| other.iter().all(|test| is_implied(test, own)))
            })
        };
        let when: Vec<&Test> = self.when.iter().collect();
        side(&self.from, &other.from)
            && side(&self.to, &other.to)
            && other.when.iter().all(|test| is_implied(test, &when))
    }
}

fn is_implied(test: &Test, by: &[&Test]) -> bool {
    by.iter().any(|by| by.implies(test))
}

impl Test {
    /// Whether what satisfies this test satisfies the other.
    fn implies(&self, other: &Self) -> bool {
        if self.attribute != other.attribute {
            return false;
        }
        let all = |covered: &[Value], by: &[Value]| covers_all(&self.attribute, by, covered);
        let positive = match (&self.values, &other.values) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(own), Some(other)) => all(own, other),
        };
        positive && all(&other.not_values, &self.not_values)
    }

    /// Whether whatever one of its values matches is excluded by its `not` form.
    pub(super) fn excludes_itself(&self) -> bool {
        let Some(values) = &self.values else {
            return false;
        };
        covers_all(&self.attribute, &self.not_values, values)
    }
}

/// Whether what any of `covered` matches is matched by one of `by`. Of a header or a claim that is
/// there several times it is the same element that both match.
fn covers_all(attribute: &Attribute, by: &[Value], covered: &[Value]) -> bool {
    by.len().saturating_mul(covered.len()) <= PAIRS_MAX
        && covered
            .iter()
            .all(|value| by.iter().any(|by| by.covers(attribute, value)))
}

impl Value {
    /// Whether what `other` matches of this attribute is matched by this value.
    fn covers(&self, attribute: &Attribute, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(TextMatch::Present), Self::Text(_) | Self::Template(_))
                if matches!(attribute, Attribute::Header(_)) =>
            {
                true
            }
            (Self::Text(own), Self::Text(other)) => text_covers(own, other),
            // A path is never empty where a template matches it.
            (Self::Text(TextMatch::Present), Self::Template(_)) => true,
            (Self::Text(TextMatch::Prefix(prefix)), Self::Template(template)) => {
                template.literal_prefix().starts_with(&**prefix)
            }
            (Self::Template(own), Self::Text(TextMatch::Exact(path))) => {
                own.matches(path.as_bytes())
            }
            (Self::Namespace(own), Self::Namespace(other)) => {
                own.is_any()
                    || own == other
                    || other.as_exact().is_some_and(|name| own.matches(name))
            }
            (
                Self::RequestPrincipal { issuer, subject },
                Self::RequestPrincipal {
                    issuer: other_issuer,
                    subject: other_subject,
                },
            ) => text_covers(issuer, other_issuer) && text_covers(subject, other_subject),
            (Self::Network(own), Self::Network(other)) => own.contains(other),
            (own, other) => own == other,
        }
    }
}

fn text_covers(own: &TextMatch, other: &TextMatch) -> bool {
    match (own, other) {
        (TextMatch::Present, TextMatch::Present) => true,
        (
            TextMatch::Present,
            TextMatch::Exact(text) | TextMatch::Prefix(text) | TextMatch::Suffix(text),
        ) => !text.is_empty(),
        // Where case does not count, as for hosts, values are in lower case.
        (own, TextMatch::Exact(other)) => own.matches(other.as_bytes()),
        (TextMatch::Prefix(own), TextMatch::Prefix(other)) => other.starts_with(&**own),
        (TextMatch::Suffix(own), TextMatch::Suffix(other)) => other.ends_with(&**own),
        _ => false,
    }
}
