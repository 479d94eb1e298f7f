//! Which of Istio's policies a request has to do with.

use std::collections::HashMap;

use smallvec::SmallVec;
use waypoint_policy::TargetId;

/// Objects that Istio's policies are attached to, by how a request reaches them.
#[derive(Debug, Default)]
pub struct IstioTargets {
    /// The Gateway and its class: of every request.
    always: SmallVec<[TargetId; 4]>,
    /// Services and ServiceEntries, by the host that addresses them.
    exact: HashMap<String, Vec<TargetId>>,
    /// The same below a name, which is kept with its leading dot.
    below: Vec<(String, TargetId)>,
}

impl IstioTargets {
    pub(crate) fn new(
        always: SmallVec<[TargetId; 4]>,
        hosts: impl Iterator<Item = (String, TargetId)>,
    ) -> Self {
        let mut targets = Self {
            always,
            ..Self::default()
        };
        for (host, target) in hosts {
            match host.strip_prefix('*') {
                Some(below) => targets.below.push((below.to_owned(), target)),
                None => targets.exact.entry(host).or_default().push(target),
            }
        }
        targets
    }

    /// What the policies for a request to `host` (without port) are attached to.
    #[must_use]
    pub fn of(&self, host: &str) -> SmallVec<[TargetId; 4]> {
        let mut targets = self.always.clone();
        if self.exact.is_empty() && self.below.is_empty() {
            return targets;
        }
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        targets.extend(self.exact.get(host).into_iter().flatten().copied());
        let below = self.below.iter();
        let below = below.filter(|(name, _)| host.len() > name.len() && host.ends_with(name));
        targets.extend(below.map(|(_, target)| *target));
        targets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_lead_to_what_they_name() {
        let hosts = [
            ("app.ns.svc.cluster.local", 1),
            ("api.example.com", 2),
            ("*.example.com", 3),
        ];
        let hosts = hosts.map(|(host, id)| (host.to_owned(), TargetId(id)));
        let targets = IstioTargets::new(SmallVec::from_slice(&[TargetId(0)]), hosts.into_iter());
        for (host, expected) in [
            ("elsewhere", &[0][..]),
            ("", &[0]),
            ("APP.ns.svc.cluster.local.", &[0, 1]),
            ("api.example.com", &[0, 2, 3]),
            ("a.b.example.com", &[0, 3]),
            ("example.com", &[0]),
            ("notexample.com", &[0]),
            (".example.com", &[0]),
        ] {
            let found: Vec<u32> = targets.of(host).iter().map(|target| target.0).collect();
            assert_eq!(found, expected, "{host}");
        }
    }
}
