use std::sync::Arc;
use std::time::SystemTime;

use smallvec::SmallVec;
use waypoint_mesh::IdentitySource;
use waypoint_policy::Principal;
use waypoint_policy::istio::Verdict;

use super::{HEAD_MAX_BYTES, KEPT, Recent, Remembered, SHARDS, TEXT_MAX_BYTES};
use crate::edge::Head;
use crate::record::{ActionRecord, RequestId};

fn id(shard: usize, number: usize) -> RequestId {
    RequestId::parse(&format!("{shard:x}{number:031x}")).unwrap()
}

fn request(id: RequestId) -> Remembered {
    let nowhere = ([127, 0, 0, 1], 0).into();
    Remembered {
        id,
        time: SystemTime::UNIX_EPOCH,
        generation: 1,
        listener: "a".into(),
        principal: Principal::Anonymous,
        identity_source: IdentitySource::None,
        peer: nowhere,
        local: nowhere,
        remote: nowhere.ip(),
        head: None,
        hosts: SmallVec::new(),
        custom: Vec::new(),
        verdict: Verdict::default(),
        route: None,
        action: ActionRecord::default(),
        allowed: None,
        by: None,
        would_deny: Vec::new(),
        code: None,
        status: 0,
        is_cut: false,
    }
}

#[test]
fn ids_are_read_as_they_are_written() {
    let id = RequestId::new();
    assert_eq!(RequestId::parse(id.as_str()), Some(id));
    for text in [
        "",
        "0",
        &"0".repeat(31),
        &"0".repeat(33),
        &"G".repeat(32),
        &"A".repeat(32),
    ] {
        assert_eq!(RequestId::parse(text), None, "{text}");
    }
}

#[test]
fn the_oldest_of_a_shard_make_room() {
    let recent = Recent::default();
    for shard in 0..SHARDS {
        for number in 0..3 * KEPT + 5 {
            recent.keep(request(id(shard, number)));
            let oldest = (number + 1).saturating_sub(KEPT);
            assert!(recent.find(&id(shard, number)).is_some());
            assert!(recent.find(&id(shard, oldest)).is_some());
            if let Some(gone) = oldest.checked_sub(1) {
                assert!(recent.find(&id(shard, gone)).is_none());
            }
        }
    }
    let kept = recent
        .shards
        .iter()
        .map(|shard| shard.lock().unwrap().kept.len());
    assert_eq!(kept.sum::<usize>(), SHARDS * KEPT);
}

#[test]
fn what_is_long_is_not_kept() {
    let recent = Recent::default();
    let head = |length: usize| {
        Some(Arc::new(Head {
            method: "GET".into(),
            authority: "a".into(),
            path: "/".repeat(length - 4).into(),
            query: "".into(),
        }))
    };
    for (case, head, tool, is_cut) in [
        ("short", head(HEAD_MAX_BYTES), TEXT_MAX_BYTES, false),
        ("a long head", head(HEAD_MAX_BYTES + 1), 1, true),
        ("a long name", None, TEXT_MAX_BYTES + 1, true),
    ] {
        let mut one = request(id(0, 1));
        one.head = head;
        one.action.tool = Some("x".repeat(tool).into());
        let recent_one = {
            recent.keep(one);
            recent.find(&id(0, 1)).unwrap()
        };
        assert_eq!(recent_one.is_cut, is_cut, "{case}");
        let kept = recent_one.action.tool.is_some();
        assert_eq!(kept, tool <= TEXT_MAX_BYTES, "{case}");
        *recent.shards[0].lock().unwrap() = super::Shard::default();
    }
}
