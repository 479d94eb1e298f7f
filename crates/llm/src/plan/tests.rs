use waypoint_policy::{Facts, PolicySet, Posture, Principal, ProviderId, Query, Settings};

use super::*;
use crate::{Call, Dialect, RetryOn};

fn permit(candidate: &Candidate) -> Permit {
    let settings = Settings {
        posture: Posture::Graduated,
        namespace: "agents".into(),
        trust_domains: vec!["cluster.local".into()],
    };
    let call = Call::models(Dialect::OpenAi, Some("m"));
    let id = "spiffe://cluster.local/ns/agents/sa/a".parse().unwrap();
    let query = Query {
        principal: &Principal::Workload(id),
        targets: &[],
        action: candidate.action(&call),
        facts: Facts::default(),
    };
    PolicySet::compile(Vec::new(), settings)
        .decide(&query)
        .permit()
        .unwrap()
}

fn planned(providers: &[u32], attempts: u32) -> Plan {
    let permitted = providers.iter().map(|id| {
        let candidate = Candidate {
            provider: ProviderId(*id),
            model: "m".into(),
        };
        let permit = permit(&candidate);
        (candidate, permit)
    });
    let rule = Rule {
        models: Vec::new(),
        backends: Vec::new(),
        timeouts: Timeouts::default(),
        retry: Retry {
            attempts,
            on: RetryOn::default(),
            base: Duration::from_millis(100),
            max: Duration::from_secs(5),
        },
    };
    plan(&rule, permitted.collect())
}

#[test]
fn goes_round_the_targets() {
    for (case, providers, attempts, expected) in [
        ("nothing permitted", &[][..], 3, &[][..]),
        ("no retries", &[4, 5][..], 0, &[4][..]),
        ("one target", &[4][..], 2, &[4, 4, 4][..]),
        ("failover first", &[4, 5][..], 2, &[4, 5, 4][..]),
        (
            "fewer attempts than targets",
            &[4, 5, 6][..],
            1,
            &[4, 5][..],
        ),
    ] {
        let plan = planned(providers, attempts);
        let order: Vec<u32> = (0..)
            .map_while(|number| plan.attempt(number))
            .map(|attempt| attempt.candidate().provider.0)
            .collect();
        assert_eq!(order, expected, "{case}");
        assert_eq!(plan.attempts() as usize, expected.len(), "{case}");
    }
    let endless = planned(&[4], u32::MAX);
    assert!(endless.attempt(u32::MAX - 1).is_some());
}

#[test]
fn pauses_before_the_same_provider_only() {
    let ms = Duration::from_millis;
    let most = u64::MAX;
    for (case, providers, failed, after, random, expected) in [
        ("another provider", &[4, 5][..], 0, None, most, Some((1, 0))),
        (
            "another, though the first is busy",
            &[4, 5][..],
            0,
            Some(ms(9_000)),
            most,
            Some((1, 0)),
        ),
        ("same, no chance", &[4][..], 0, None, 0, Some((1, 50))),
        ("same, all chance", &[4][..], 0, None, most, Some((1, 99))),
        ("doubles", &[4][..], 2, None, 0, Some((3, 200))),
        ("bounded", &[4][..], 8, None, 0, Some((9, 2_500))),
        ("asked for", &[4][..], 0, Some(ms(700)), 0, Some((1, 700))),
        ("asked for too much", &[4][..], 0, Some(ms(5_001)), 0, None),
        (
            "skips the same provider",
            &[4, 4, 5][..],
            0,
            Some(ms(60_000)),
            0,
            Some((2, 0)),
        ),
        ("exhausted", &[4][..], 9, None, 0, None),
        ("beyond", &[4][..], 99, None, 0, None),
    ] {
        let next = planned(providers, 9).next(failed, after, Duration::from_secs(5), random);
        let next = next.map(|(number, pause)| (number, pause.as_millis()));
        assert_eq!(next, expected, "{case}");
    }
    assert_eq!(planned(&[], 9).next(0, None, Duration::MAX, 0), None);
}
