//! Session ids that only their owner can use: the upstream's id, sealed with principal and route.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use waypoint_mcp::session::is_valid_id;
use waypoint_policy::{Code, Principal, Refusal};

/// Seals and opens session ids with a key that lives as long as the process: after a restart
/// clients meet "unknown session" and initialize anew, as they do with any server that restarts.
pub(crate) struct Sealer {
    key: LessSafeKey,
    random: SystemRandom,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

/// What a session belongs to; authenticated, not sent.
fn owner(principal: &Principal, route: &str) -> Vec<u8> {
    let principal = principal.spiffe().map_or("", |id| id.as_str());
    [principal.as_bytes(), b"\n", route.as_bytes()].concat()
}

impl Sealer {
    /// A sealer with a new key.
    ///
    /// # Panics
    /// If the system has no randomness: nothing could be kept secret then.
    pub(crate) fn new() -> Self {
        let random = SystemRandom::new();
        let mut key = [0; 32];
        random.fill(&mut key).expect("the system has randomness");
        let key = UnboundKey::new(&AES_256_GCM, &key).expect("the key has the cipher's length");
        Self {
            key: LessSafeKey::new(key),
            random,
        }
    }

    /// The id a caller gets for an upstream's session.
    ///
    /// # Errors
    /// [`Code::UpstreamBadAnswer`] when the upstream's id is not one.
    pub(crate) fn seal(
        &self,
        id: &[u8],
        principal: &Principal,
        route: &str,
    ) -> Result<String, Refusal> {
        if !is_valid_id(id) {
            return Err(Refusal::new(Code::UpstreamBadAnswer));
        }
        let failed = |_| Refusal::new(Code::Internal);
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(failed)?;
        let mut sealed = id.to_vec();
        let aad = Aad::from(owner(principal, route));
        let unique = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(unique, aad, &mut sealed)
            .map_err(failed)?;
        Ok(URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat()))
    }

    /// The upstream's id, if this principal got `sealed` on this route.
    ///
    /// # Errors
    /// [`Code::SessionUnknown`] for everything else, with no hint what is wrong.
    pub(crate) fn open(
        &self,
        sealed: &[u8],
        principal: &Principal,
        route: &str,
    ) -> Result<String, Refusal> {
        let unknown = || Refusal::new(Code::SessionUnknown).with_message("Session not found");
        let mut bytes = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| unknown())?;
        if bytes.len() <= NONCE_LEN {
            return Err(unknown());
        }
        let (nonce, sealed) = bytes.split_at_mut(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| unknown())?;
        let aad = Aad::from(owner(principal, route));
        let opened = self
            .key
            .open_in_place(nonce, aad, sealed)
            .map_err(|_| unknown())?;
        String::from_utf8(opened.to_vec()).map_err(|_| unknown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(name: &str) -> Principal {
        Principal::Workload(format!("spiffe://td/ns/a/sa/{name}").parse().unwrap())
    }

    #[test]
    fn only_the_owner_opens_a_session_and_only_on_its_route() {
        let sealer = Sealer::new();
        let (ann, bob) = (principal("ann"), principal("bob"));
        let id = sealer.seal(b"upstream-1", &ann, "a/b/c").unwrap();
        assert!(is_valid_id(id.as_bytes()) && !id.contains("upstream"));
        assert_ne!(id, sealer.seal(b"upstream-1", &ann, "a/b/c").unwrap());
        assert_eq!(
            sealer.open(id.as_bytes(), &ann, "a/b/c").unwrap(),
            "upstream-1"
        );
        let mut forged = id.clone().into_bytes();
        forged[20] ^= 1;
        for (case, sealed, who, route) in [
            ("another principal", id.as_bytes(), &bob, "a/b/c"),
            ("another route", id.as_bytes(), &ann, "a/b/d"),
            ("forged", &forged, &ann, "a/b/c"),
            ("the upstream's own id", b"upstream-1", &ann, "a/b/c"),
            ("empty", b"", &ann, "a/b/c"),
            ("not text", b"\xff\xfe", &ann, "a/b/c"),
        ] {
            let refused = sealer.open(sealed, who, route).unwrap_err();
            assert_eq!(refused.code, Code::SessionUnknown, "{case}");
        }
        assert!(sealer.seal(b"with space", &ann, "a").is_err());
    }
}
